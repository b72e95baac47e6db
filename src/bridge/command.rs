//! Programs that do the work: run, and their failures made into words.

use crate::kernel::process::{self, Finished};
use crate::kernel::sys::strerror;
use nix::errno::Errno;
use std::time::Duration;

/// Runs a program to its end, which has to be a good one. Otherwise says why not: with the program's own last words.
pub(super) fn run(program: &str, args: &[String], limit: Duration) -> Result<Finished, (Errno, String)> {
    let finished = process::run(program, args, limit).map_err(|errno| {
        let why = match errno {
            Errno::ENOENT => format!("there is no program {program} in PATH"),
            Errno::ETIMEDOUT => format!("{program} did not answer within {} s", limit.as_secs()),
            errno => format!("unable to run {program}: {}", strerror(errno)),
        };
        (errno, why)
    })?;
    if finished.status.success() {
        return Ok(finished);
    }
    Err((Errno::EIO, last_words(program, &finished)))
}

/// What the program has written to its standard error, or else how it ended.
pub(super) fn last_words(program: &str, finished: &Finished) -> String {
    let words = finished.stderr.trim();
    if words.is_empty() { format!("{program} failed ({})", finished.status) } else { words.replace('\n', "; ") }
}
