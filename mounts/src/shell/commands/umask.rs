//! `umask`: the permissions that new files do not get.

use super::call::{Call, Outcome};
use super::modes::Mode;

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let (mut symbolic, mut reusable, mut value) = (false, false, None);
    for arg in call.args() {
        match arg.as_str() {
            "-S" => symbolic = true,
            "-p" => reusable = true,
            "--" => {}
            arg => {
                value.get_or_insert(arg);
            }
        }
    }
    let client = &call.place.client;
    let Some(value) = value else {
        let mask = client.umask();
        let shown = if symbolic {
            letters(!mask)
        } else {
            format!("{mask:04o}")
        };
        let line = match (reusable, symbolic) {
            (true, true) => format!("umask -S {shown}\n"),
            (true, false) => format!("umask {shown}\n"),
            _ => format!("{shown}\n"),
        };
        call.out(line.as_bytes()).await?;
        return Ok(0);
    };
    let octal = value.bytes().all(|byte| byte.is_ascii_digit());
    let mask = if octal {
        u16::from_str_radix(value, 8)
            .ok()
            .filter(|mask| *mask <= 0o777)
    } else {
        let allowed = Mode::parse(value).map(|mode| mode.apply(!client.umask() & 0o777, 0, false));
        allowed.map(|allowed| !allowed & 0o777)
    };
    match mask {
        Some(mask) => {
            client.set_umask(mask);
            if symbolic {
                call.out(format!("{}\n", letters(!mask)).as_bytes()).await?;
            }
            Ok(0)
        }
        None if octal => refuse(call, &format!("{value}: octal number out of range")).await,
        None => refuse(call, &format!("`{value}': invalid symbolic mode operator")).await,
    }
}

async fn refuse(call: &Call<'_>, what: &str) -> Outcome {
    // A builtin of bash speaks in the shell's name.
    let line = format!("bash: umask: {what}\n");
    call.context.stderr.write_all(line.as_bytes()).await?;
    Ok(1)
}

fn letters(perm: u16) -> String {
    let of = |shift: u16| {
        let bits = [(4, 'r'), (2, 'w'), (1, 'x')];
        let set = bits.iter().filter(|(bit, _)| perm >> shift & bit != 0);
        set.map(|(_, letter)| *letter).collect::<String>()
    };
    format!("u={},g={},o={}", of(6), of(3), of(0))
}
