//! Running another program for a bounded time, from a process that may have many threads.

use super::pidfd;
use super::spawn::{Child, spawn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::iter::once;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// No more than this is kept of each output; the program may write as much as it likes.
const KEPT: usize = 64 * 1024;

/// What a program has left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program that is found in PATH, without a shell, and waits for it. It gets no other file of ours than its
/// three, reads nothing, and is a process group of its own. ETIMEDOUT: it was killed, with its group, and is gone.
pub(crate) fn run(program: &str, args: &[String], limit: Duration) -> Result<Finished, Errno> {
    let deadline = Instant::now().checked_add(limit).ok_or(Errno::EINVAL)?;
    let words = once(program).chain(args.iter().map(String::as_str));
    let words: Result<Vec<_>, _> = words.map(CString::new).collect();
    let child = spawn(&words.map_err(|_| Errno::EINVAL)?)?;
    let mut outputs = [Output::new(&child.stdout), Output::new(&child.stderr)];
    let ended = collect(&child, &mut outputs, deadline);
    if ended.is_err() {
        child.kill_group();
    }
    let [stdout, stderr] = outputs.map(|output| String::from_utf8_lossy(&output.bytes).into_owned());
    let status = child.wait()?;
    ended.map(|()| Finished { status, stdout, stderr })
}

/// One of the program's outputs.
struct Output<'a> {
    pipe: Option<&'a File>,
    bytes: Vec<u8>,
}

impl<'a> Output<'a> {
    fn new(pipe: &'a File) -> Self {
        Self { pipe: Some(pipe), bytes: Vec::new() }
    }

    /// Reads what is there: at most what a pipe holds, lest somebody who never stops writing keeps us.
    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            let Some(mut pipe) = self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(len) if len > 0 => {
                    let room = KEPT.saturating_sub(self.bytes.len()).min(len);
                    self.bytes.extend_from_slice(buffer.get(..room).unwrap_or_default());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => self.pipe = None,
            }
        }
    }
}

/// Both outputs, up to the moment when the program itself has ended; who else has got hold of them may go on writing.
fn collect(child: &Child, outputs: &mut [Output<'_>; 2], deadline: Instant) -> Result<(), Errno> {
    let ended = pidfd::open(child.pid)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::ETIMEDOUT);
        }
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        let mut watched = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        let pipes = outputs.iter().filter_map(|output| output.pipe);
        watched.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
        let over = watched.first().and_then(PollFd::any).unwrap_or_default();
        outputs.iter_mut().for_each(Output::drain);
        if over {
            return Ok(());
        }
    }
}
