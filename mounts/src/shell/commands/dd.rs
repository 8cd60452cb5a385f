//! `dd`: blocks from one place to another, of which only what is copied is read.

use std::io;
use std::time::Instant;

use super::call::{Call, Outcome};
use super::options::size;
use super::source::{Sink, Source};

/// Largest block: it is held in memory.
const BLOCK_MAX: u64 = 1 << 30;

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
struct Plan {
    from: Option<String>,
    to: Option<String>,
    in_block: u64,
    out_block: u64,
    count: Option<u64>,
    /// The count is in bytes.
    count_bytes: bool,
    skip: u64,
    seek: u64,
    conversions: Vec<String>,
    append: bool,
    quiet: bool,
    /// `skip` is in bytes.
    skip_bytes: bool,
    /// `seek` is in bytes.
    seek_bytes: bool,
}

/// Conversions that are known; those about durability have nothing to do.
const CONVERSIONS: [&str; 10] = [
    "notrunc",
    "sync",
    "ucase",
    "lcase",
    "fsync",
    "fdatasync",
    "noerror",
    "swab",
    "excl",
    "nocreat",
];

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let plan = match read(call.args()) {
        Ok(plan) => plan,
        Err(what) => return call.usage(&what, 1).await,
    };
    let began = Instant::now();
    match copy(call, &plan).await? {
        Ok(done) => {
            if !plan.quiet {
                summary(call, &done, began.elapsed().as_secs_f64()).await?;
            }
            Ok(0)
        }
        Err((what, error)) => {
            call.complain_of(&what, &error).await?;
            Ok(1)
        }
    }
}

fn read(args: &[String]) -> Result<Plan, String> {
    let mut plan = Plan {
        from: None,
        to: None,
        in_block: 512,
        out_block: 512,
        count: None,
        count_bytes: false,
        skip: 0,
        seek: 0,
        conversions: Vec::new(),
        append: false,
        quiet: false,
        skip_bytes: false,
        seek_bytes: false,
    };
    for arg in args {
        operand(arg, &mut plan)?;
    }
    if let Some(unknown) = plan
        .conversions
        .iter()
        .find(|c| !CONVERSIONS.contains(&c.as_str()))
    {
        return Err(format!("invalid conversion: '{unknown}'"));
    }
    if !plan.skip_bytes {
        plan.skip = plan.skip.saturating_mul(plan.in_block);
    }
    if !plan.seek_bytes {
        plan.seek = plan.seek.saturating_mul(plan.out_block);
    }
    Ok(plan)
}

/// Takes up one `NAME=VALUE`.
fn operand(arg: &str, plan: &mut Plan) -> Result<(), String> {
    let unknown = || format!("unrecognized operand '{arg}'");
    let (name, value) = arg.split_once('=').ok_or_else(unknown)?;
    let number = || size(value).ok_or_else(|| format!("invalid number: '{value}'"));
    let block = || match number()? {
        0 => Err(format!("invalid number: '{value}'")),
        block if block > BLOCK_MAX => Err(format!("invalid number: '{value}': too large")),
        block => Ok(block),
    };
    match name {
        "if" => plan.from = Some(value.into()),
        "of" => plan.to = Some(value.into()),
        "bs" => (plan.in_block, plan.out_block) = (block()?, block()?),
        "ibs" => plan.in_block = block()?,
        "obs" => plan.out_block = block()?,
        "count" => plan.count = Some(number()?),
        "skip" | "iseek" => plan.skip = number()?,
        "seek" | "oseek" => plan.seek = number()?,
        "conv" => plan.conversions = value.split(',').map(str::to_owned).collect(),
        "status" => plan.quiet = value == "none",
        "iflag" | "oflag" => {
            for flag in value.split(',') {
                match flag {
                    "append" => plan.append = true,
                    "count_bytes" => plan.count_bytes = true,
                    "skip_bytes" => plan.skip_bytes = true,
                    "seek_bytes" => plan.seek_bytes = true,
                    _ => {}
                }
            }
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

/// What was copied.
#[derive(Debug, Default)]
struct Copied {
    whole_in: u64,
    parts_in: u64,
    whole_out: u64,
    parts_out: u64,
    bytes: u64,
}

type Step<T> = Result<T, (String, io::Error)>;

async fn copy(call: &Call<'_>, plan: &Plan) -> Outcome<Step<Copied>> {
    let name = plan.from.as_deref().unwrap_or("-");
    let mut source = match Source::open(call, name).await {
        Ok(source) => source,
        Err(error) => return Ok(Err((format!("failed to open '{name}'"), error))),
    };
    let mut sink = match open_sink(call, plan).await {
        Ok(sink) => sink,
        Err(failed) => return Ok(Err(failed)),
    };
    let mut blocks = Blocks {
        pending: Vec::new(),
        over: false,
    };
    if let Err(error) = blocks.skip(&mut source, plan.skip).await {
        return Ok(Err((format!("error reading '{name}'"), error)));
    }
    let mut done = Copied::default();
    let copied = blocks_of(call, plan, (&mut source, &mut blocks), &mut sink, &mut done).await?;
    done.whole_out = done.bytes / plan.out_block;
    done.parts_out = u64::from(done.bytes % plan.out_block > 0);
    Ok(copied.map(|()| done))
}

/// Copies block by block, as far as is wanted.
async fn blocks_of(
    call: &Call<'_>,
    plan: &Plan,
    (source, blocks): (&mut Source<'_>, &mut Blocks),
    sink: &mut Option<Sink<'_>>,
    done: &mut Copied,
) -> Outcome<Step<()>> {
    let mut left = plan.count;
    while left != Some(0) {
        let most = match left {
            Some(left) if plan.count_bytes => left.min(plan.in_block),
            _ => plan.in_block,
        };
        let block = match blocks.next(source, most).await {
            Ok(block) if block.is_empty() => break,
            Ok(block) => block,
            Err(error) => {
                let from = plan.from.as_deref().unwrap_or("-");
                return Ok(Err((format!("error reading '{from}'"), error)));
            }
        };
        if block.len() as u64 == plan.in_block {
            done.whole_in += 1;
        } else {
            done.parts_in += 1;
        }
        let taken = if plan.count_bytes {
            block.len() as u64
        } else {
            1
        };
        left = left.map(|left| left - taken);
        let block = converted(block, plan);
        done.bytes += block.len() as u64;
        match sink {
            None => call.out(&block).await?,
            Some(sink) => {
                if let Err(error) = sink.write(&block).await {
                    let to = plan.to.as_deref().unwrap_or_default();
                    return Ok(Err((format!("error writing '{to}'"), error)));
                }
            }
        }
    }
    Ok(Ok(()))
}

async fn open_sink<'a>(call: &'a Call<'a>, plan: &Plan) -> Step<Option<Sink<'a>>> {
    let Some(to) = &plan.to else {
        return Ok(None);
    };
    let failed = |error| (format!("failed to open '{to}'"), error);
    if plan.append {
        return Sink::append(call, to).await.map(Some).map_err(failed);
    }
    let keep = plan.conversions.iter().any(|c| c == "notrunc") || plan.seek > 0;
    let mut sink = Sink::create(call, to, !keep).await.map_err(failed)?;
    if keep && !plan.conversions.iter().any(|c| c == "notrunc") {
        sink.cut(plan.seek).await.map_err(failed)?;
    }
    sink.seek(plan.seek);
    Ok(Some(sink))
}

/// Blocks of a source, whatever pieces it comes in.
struct Blocks {
    pending: Vec<u8>,
    over: bool,
}

impl Blocks {
    async fn skip(&mut self, source: &mut Source<'_>, bytes: u64) -> io::Result<()> {
        if source.size().is_some() {
            source.seek(bytes);
            return Ok(());
        }
        let mut left = bytes;
        while left > 0 {
            let skipped = self.next(source, left.min(1 << 20)).await?;
            if skipped.is_empty() {
                break;
            }
            left -= skipped.len() as u64;
        }
        Ok(())
    }

    async fn next(&mut self, source: &mut Source<'_>, most: u64) -> io::Result<Vec<u8>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        while self.pending.len() < most && !self.over {
            match source.read().await? {
                Some(mut piece) => self.pending.append(&mut piece),
                None => self.over = true,
            }
        }
        let rest = self.pending.split_off(most.min(self.pending.len()));
        Ok(std::mem::replace(&mut self.pending, rest))
    }
}

fn converted(mut block: Vec<u8>, plan: &Plan) -> Vec<u8> {
    for conversion in &plan.conversions {
        match conversion.as_str() {
            "ucase" => block.make_ascii_uppercase(),
            "lcase" => block.make_ascii_lowercase(),
            "swab" => block.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1)),
            "sync" => block.resize(usize::try_from(plan.in_block).unwrap_or(block.len()), 0),
            _ => {}
        }
    }
    block
}

async fn summary(call: &Call<'_>, done: &Copied, seconds: f64) -> Outcome<()> {
    call.flush().await?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "a speed for people, shown with few digits"
    )]
    let speed = done.bytes as f64 / seconds.max(1e-9) / 1e6;
    let text = format!(
        "{}+{} records in\n{}+{} records out\n{} bytes copied, {seconds:.6} s, {speed:.1} MB/s\n",
        done.whole_in, done.parts_in, done.whole_out, done.parts_out, done.bytes,
    );
    call.context.stderr.write_all(text.as_bytes()).await?;
    Ok(())
}
