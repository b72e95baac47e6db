//! A piece of code watched system call by system call (ptrace): told, made to fail at one of them, or killed there.
//!
//! The code runs in a process of its own. Its threads are watched, too; processes that it starts are not.

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// With this argument, which it does not look at, getpid(2) ends the piece.
const END: u64 = 0x5445_5354;

/// A system call, told apart from the others by its thread and its place there. Memory management does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Threads are numbered as they come.
    pub thread: usize,
    /// Its place among the thread's calls, and among those of its kind: how often one waits is not always the same.
    pub at: usize,
    pub nth: usize,
    pub number: i64,
    pub args: [u64; 6],
}

impl Call {
    /// Whatever call has this place.
    pub fn whichever(thread: usize, at: usize) -> Self {
        Self { thread, at, nth: 0, number: ANY, args: [0; 6] }
    }

    /// Calls of one kind do the same.
    pub fn kind(&self) -> (i64, u64) {
        kind(self.number, &self.args)
    }

    /// Does another run make the same call here?
    fn is_like(&self, other: &Self) -> bool {
        if self.number == ANY {
            return (self.thread, self.at) == (other.thread, other.at);
        }
        (self.thread, self.kind(), self.nth) == (other.thread, other.kind(), other.nth)
    }
}

fn kind(number: i64, args: &[u64; 6]) -> (i64, u64) {
    (number, if number == libc::SYS_ioctl { args[1] } else { 0 })
}

/// Whatever call it is.
const ANY: i64 = -1;

/// What is to become of one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The process is killed as it enters the call, which is not done.
    Killed,
    /// It is not done, and fails with this.
    Fails(Errno),
    /// It is done all the same.
    FailsDone(Errno),
    /// Somebody does something before it is made. See [`watch_while`].
    Waits,
}

/// What came of it.
#[derive(Debug)]
pub struct Watched {
    /// All system calls of the piece, with the one that ends it; or those up to the one that met its fate.
    pub calls: Vec<Call>,
    /// Did that one come?
    pub met: bool,
    /// None: killed.
    pub status: Option<i32>,
}

thread_local! {
    static BEGUN: Cell<bool> = const { Cell::new(false) };
}

/// The piece to be watched: once within what [`watch`] runs. Elsewhere it just runs.
pub fn piece<T>(work: impl FnOnce() -> T) -> T {
    if !BEGUN.replace(false) {
        return work();
    }
    ptrace::traceme().unwrap();
    raise(Signal::SIGSTOP).unwrap();
    let result = work();
    // SAFETY: takes nothing
    unsafe { libc::syscall(libc::SYS_getpid, END) };
    result
}

/// Runs `body` in a process of its own, which ends with 0 or, if `body` panics, with 1. `fate`: of which system call; it is
/// spared if another one is made in its place.
pub fn watch(fate: Option<(&Call, Fate)>, body: impl FnOnce()) -> Watched {
    watch_with(fate, &mut || {}, body)
}

/// The same, but as the code comes to this system call, `others` do something.
pub fn watch_while(call: &Call, others: &mut dyn FnMut(), body: impl FnOnce()) -> Watched {
    watch_with(Some((call, Fate::Waits)), others, body)
}

fn watch_with(fate: Option<(&Call, Fate)>, others: &mut dyn FnMut(), body: impl FnOnce()) -> Watched {
    // SAFETY: glibc keeps malloc usable in the child, and the child takes no other lock that somebody may have
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            BEGUN.set(true);
            let ok = catch_unwind(AssertUnwindSafe(body)).is_ok();
            // SAFETY: ends the process without running what belongs to the parent
            unsafe { libc::_exit(i32::from(!ok)) }
        }
    };
    match waitpid(child, Some(WaitPidFlag::WUNTRACED)).unwrap() {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => Watcher::new(child, fate, others).run(),
        WaitStatus::Exited(_, status) => Watched { calls: Vec::new(), met: false, status: Some(status) },
        other => panic!("{other:?}"),
    }
}

/// Runs `body` in a process of its own and kills it as it enters its system call number `at`, counted from 0, which is then
/// not done. False: it had ended before.
pub fn killed_at(at: usize, body: impl FnOnce()) -> bool {
    match watch(Some((&Call::whichever(0, at), Fate::Killed)), || piece(body)).status {
        None => true,
        Some(status) => {
            assert_eq!(status, 0);
            false
        }
    }
}

struct Thread {
    pid: Pid,
    calls: usize,
    of_a_kind: BTreeMap<(i64, u64), usize>,
    /// In a system call; what comes next is its end.
    inside: bool,
    /// What the one it is in is to return.
    result: Option<Errno>,
    /// It has just got memory for a stack.
    stack: bool,
}

struct Watcher<'a> {
    child: Pid,
    fate: Option<(&'a Call, Fate)>,
    others: &'a mut dyn FnMut(),
    threads: Vec<Thread>,
    calls: Vec<Call>,
    met: bool,
    over: bool,
}

impl<'a> Watcher<'a> {
    fn new(child: Pid, fate: Option<(&'a Call, Fate)>, others: &'a mut dyn FnMut()) -> Self {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACECLONE;
        ptrace::setoptions(child, options).unwrap();
        let mut watcher = Self { child, fate, others, threads: Vec::new(), calls: Vec::new(), met: false, over: false };
        watcher.thread(child);
        watcher
    }

    fn thread(&mut self, pid: Pid) -> usize {
        self.threads.iter().position(|thread| thread.pid == pid).unwrap_or_else(|| {
            self.threads.push(Thread { pid, calls: 0, of_a_kind: BTreeMap::new(), inside: false, result: None, stack: false });
            self.threads.len() - 1
        })
    }

    fn run(mut self) -> Watched {
        self.go_on(self.child, None);
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL)).unwrap();
            match status {
                WaitStatus::PtraceSyscall(pid) => {
                    self.system_call(pid);
                    self.go_on(pid, None);
                }
                WaitStatus::PtraceEvent(pid, ..) => self.go_on(pid, None),
                WaitStatus::Stopped(pid, signal) => {
                    let known = self.threads.len();
                    let new = self.thread(pid) == known;
                    self.go_on(pid, Some(signal).filter(|signal| !new || *signal != Signal::SIGSTOP));
                }
                WaitStatus::Exited(pid, status) if pid == self.child => return self.ended(Some(status)),
                WaitStatus::Signaled(pid, Signal::SIGKILL, _) if pid == self.child && self.met => return self.ended(None),
                WaitStatus::Exited(..) => {}
                WaitStatus::Signaled(pid, Signal::SIGKILL, _) if pid != self.child => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ended(self, status: Option<i32>) -> Watched {
        Watched { calls: self.calls, met: self.met, status }
    }

    /// A thread that has been killed meanwhile need not go on.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let gone = if self.over || (self.met && self.threads.iter().all(|thread| thread.result.is_none())) {
            ptrace::cont(pid, signal)
        } else {
            ptrace::syscall(pid, signal)
        };
        assert!(matches!(gone, Ok(()) | Err(Errno::ESRCH)), "{gone:?}");
    }

    fn system_call(&mut self, pid: Pid) {
        let number = self.thread(pid);
        let thread = &mut self.threads[number];
        thread.inside = !thread.inside;
        if !thread.inside {
            if let Some(errno) = thread.result.take() {
                set_result(pid, errno);
            }
            return;
        }
        let Ok(call) = entered(pid) else { return };
        if call.0 == libc::SYS_getpid && call.1[0] == END {
            self.over = true;
        }
        let stack = call.0 == libc::SYS_mmap && call.1[3] & libc::MAP_STACK as u64 != 0;
        let counts = stack || thread.stack && call.0 == libc::SYS_mprotect || !is_memory(call.0, &call.1);
        thread.stack = stack;
        if !counts || self.met {
            return;
        }
        let at = thread.calls;
        thread.calls += 1;
        let before = thread.of_a_kind.entry(kind(call.0, &call.1)).or_default();
        let nth = *before;
        *before += 1;
        let call = Call { thread: number, at, nth, number: call.0, args: call.1 };
        let fate = self.fate.filter(|(wanted, _)| wanted.is_like(&call));
        self.calls.push(call);
        let Some((_, fate)) = fate else { return };
        match fate {
            Fate::Killed => kill(self.child, Signal::SIGKILL).unwrap(),
            Fate::Fails(errno) => {
                skip_call(pid);
                self.threads[number].result = Some(errno);
            }
            Fate::FailsDone(errno) => self.threads[number].result = Some(errno),
            Fate::Waits => (self.others)(),
        }
        self.met = true;
    }
}

/// What the allocator does, and what the standard library checks in debug builds before it closes a file.
fn is_memory(number: i64, args: &[u64; 6]) -> bool {
    match number {
        libc::SYS_brk | libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mremap | libc::SYS_mprotect | libc::SYS_madvise => true,
        libc::SYS_fcntl => args[1] == libc::F_GETFD as u64,
        _ => false,
    }
}

fn entered(pid: Pid) -> Result<(i64, [u64; 6]), Errno> {
    let info = ptrace::syscall_info(pid)?;
    assert_eq!(info.op, libc::PTRACE_SYSCALL_INFO_ENTRY);
    // SAFETY: that is the member that an entry has
    let entry = unsafe { info.u.entry };
    Ok((entry.nr as i64, entry.args))
}

/// A system call that there is none of is not done.
#[cfg(target_arch = "x86_64")]
fn skip_call(pid: Pid) {
    let mut registers = ptrace::getregs(pid).unwrap();
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers).unwrap();
}

#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, errno: Errno) {
    let mut registers = ptrace::getregs(pid).unwrap();
    registers.rax = -i64::from(errno as i32) as u64;
    ptrace::setregs(pid, registers).unwrap();
}

#[cfg(not(target_arch = "x86_64"))]
fn skip_call(_: Pid) {
    super::skip("no code for the registers of this processor");
}

#[cfg(not(target_arch = "x86_64"))]
fn set_result(_: Pid, _: Errno) {}
