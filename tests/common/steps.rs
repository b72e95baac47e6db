//! A process that is watched system call by system call (ptrace), to be killed at one of them.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn ptrace(request: libc::c_uint, pid: Pid, data: libc::c_long) {
    // SAFETY: none of the requests used here takes a pointer
    let rc = unsafe { libc::ptrace(request as _, pid.as_raw(), 0_usize, data) };
    assert_eq!(rc, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Runs `body` in a process of its own and kills it as it enters its system call number `at`, counted from 0, which is then
/// not done. False: it had ended before.
pub fn killed_at(at: usize, body: impl FnOnce()) -> bool {
    // SAFETY: glibc keeps malloc usable in the child, and the child takes no other lock that somebody may have
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            ptrace(libc::PTRACE_TRACEME, Pid::from_raw(0), 0);
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            let ok = catch_unwind(AssertUnwindSafe(body)).is_ok();
            // SAFETY: ends the process without running what belongs to the parent
            unsafe { libc::_exit(i32::from(!ok)) }
        }
    };
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Stopped(child, Signal::SIGSTOP));
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, child, options.into());
    let (mut entered, mut inside, mut signal) = (0, false, 0);
    loop {
        ptrace(libc::PTRACE_SYSCALL, child, signal);
        signal = 0;
        match waitpid(child, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) if inside => inside = false,
            WaitStatus::PtraceSyscall(_) if entered == at => {
                kill(child, Signal::SIGKILL).unwrap();
                while !matches!(waitpid(child, Some(WaitPidFlag::__WALL)).unwrap(), WaitStatus::Signaled(_, Signal::SIGKILL, _)) {
                }
                return true;
            }
            WaitStatus::PtraceSyscall(_) => (entered, inside) = (entered + 1, true),
            WaitStatus::Exited(_, 0) => return false,
            WaitStatus::Stopped(_, other) => signal = other as libc::c_long,
            other => panic!("{other:?}"),
        }
    }
}
