//! `tee`: the standard input to the standard output and to files.

use super::call::{Call, Outcome, plain};
use super::options::{self, Known};
use super::source::Sink;

const KNOWN: Known = Known {
    short: "aip",
    long: &[
        ("append", 'a'),
        ("ignore-interrupts", 'i'),
        ("output-error?", 'p'),
    ],
    error_code: 1,
};

pub(crate) async fn run(call: &Call<'_>) -> Outcome {
    let given = options::read(call, &KNOWN).await?;
    let mut sinks = Vec::new();
    for file in &given.operands {
        let opened = if given.has('a') {
            Sink::append(call, file).await
        } else {
            Sink::create(call, file, true).await
        };
        match opened {
            Ok(sink) => sinks.push((file, sink)),
            Err(error) => call.complain_of(file, &error).await?,
        }
    }
    loop {
        let piece = match call.context.stdin.read_chunk().await.map_err(plain) {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                call.complain_of("read error", &error).await?;
                break;
            }
        };
        call.context.stdout.write_all(&piece).await?;
        let mut kept = Vec::new();
        for (file, mut sink) in sinks {
            match sink.write(&piece).await {
                Ok(()) => kept.push((file, sink)),
                Err(error) => call.complain_of(file, &error).await?,
            }
        }
        sinks = kept;
    }
    Ok(call.status())
}
