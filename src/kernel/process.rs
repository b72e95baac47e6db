//! Running another program for a bounded time, from a process that may have many threads.

use super::pidfd;
use super::sys::io_errno as errno;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
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
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // SAFETY: the closure only makes a system call, which is allowed between fork and exec
    unsafe { command.pre_exec(close_other_files) };
    let mut child = command.spawn().map_err(errno)?;
    let outputs = collect(&mut child, deadline);
    if outputs.is_err() {
        kill_group(&child);
    }
    let status = child.wait().map_err(errno)?;
    let [stdout, stderr] = outputs?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Finished { status, stdout, stderr })
}

/// Marks what others have opened without O_CLOEXEC. Kernels before 5.11 do not know this; then they are inherited.
#[allow(clippy::unnecessary_wraps)] // what pre_exec() takes
fn close_other_files() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: by value, and this process is about to be another program
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

fn kill_group(child: &Child) {
    // SAFETY: by value; the child has not been waited for, so the number is still that of its group
    unsafe { libc::kill(pid(child).saturating_neg(), libc::SIGKILL) };
}

fn pid(child: &Child) -> i32 {
    child.id().cast_signed()
}

/// One of the program's outputs.
struct Output {
    pipe: Option<Box<dyn Pipe>>,
    bytes: Vec<u8>,
}

trait Pipe: Read + AsFd {}
impl<T: Read + AsFd> Pipe for T {}

impl Output {
    fn new(pipe: Option<impl Read + AsFd + 'static>) -> Result<Self, Errno> {
        let pipe = pipe.ok_or(Errno::EBADF)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { pipe: Some(Box::new(pipe)), bytes: Vec::new() })
    }

    /// Reads what is there: at most what a pipe holds, lest somebody who never stops writing keeps us.
    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
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
fn collect(child: &mut Child, deadline: Instant) -> Result<[Vec<u8>; 2], Errno> {
    let ended = pidfd::open(pid(child))?;
    let mut outputs = [Output::new(child.stdout.take())?, Output::new(child.stderr.take())?];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::ETIMEDOUT);
        }
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        let mut watched = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        let pipes = outputs.iter().filter_map(|output| output.pipe.as_ref());
        watched.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
        let over = watched.first().and_then(PollFd::any).unwrap_or_default();
        drop(watched);
        outputs.iter_mut().for_each(Output::drain);
        if over {
            return Ok(outputs.map(|output| output.bytes));
        }
    }
}
