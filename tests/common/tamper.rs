//! A process that gets odd answers from the kernel: the real ones, changed on their way (ptrace). x86-64 only.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::collections::BTreeSet;
use std::io::{IoSlice, IoSliceMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A system call that has been done.
pub struct Answer {
    pub pid: Pid,
    pub call: libc::c_long,
    pub args: [u64; 6],
    pub result: i64,
}

impl Answer {
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let remote = [RemoteIoVec { base: address as usize, len }];
        let read = process_vm_readv(self.pid, &mut [IoSliceMut::new(&mut bytes)], &remote);
        assert_eq!(read, Ok(len));
        bytes
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        let remote = [RemoteIoVec { base: address as usize, len: bytes.len() }];
        assert_eq!(process_vm_writev(self.pid, &[IoSlice::new(bytes)], &remote), Ok(bytes.len()));
    }

    /// The path that an openat() was called with.
    pub fn path(&self) -> String {
        let mut path = Vec::new();
        while path.last() != Some(&0) {
            path.extend(self.read(self.args[1] + path.len() as u64, 1));
        }
        String::from_utf8(path[..path.len() - 1].to_vec()).unwrap()
    }

    /// Datagrams that the library has received from netlink: where they are, and how long.
    pub fn datagrams(&self) -> Vec<Datagram> {
        const FLAGS: u64 = (libc::MSG_DONTWAIT | libc::MSG_TRUNC) as u64;
        match self.call {
            libc::SYS_recvfrom if self.args[3] == FLAGS && self.result > 0 => {
                vec![Datagram { address: self.args[1], len: self.result as usize, len_at: None }]
            }
            libc::SYS_recvmmsg if self.result > 0 => {
                let of = |at: u64| u64::from_ne_bytes(self.read(at, 8).try_into().unwrap());
                let headers = (0..self.result as u64).map(|i| self.args[1] + i * 64); // struct mmsghdr
                let datagram = |header| Datagram {
                    address: of(of(header + 16)),
                    len: (of(header + 56) & 0xffff_ffff) as usize,
                    len_at: Some(header + 56),
                };
                headers.map(datagram).collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn bytes(&self, datagram: &Datagram) -> Vec<u8> {
        self.read(datagram.address, datagram.len)
    }

    /// Puts another datagram in the place of one; the library has room for 32 KiB.
    pub fn replace(&mut self, datagram: &Datagram, bytes: &[u8]) {
        self.write(datagram.address, bytes);
        self.set_len(datagram, bytes.len());
    }

    pub fn set_len(&mut self, datagram: &Datagram, len: usize) {
        match datagram.len_at {
            Some(address) => self.write(address, &(len as u32).to_ne_bytes()),
            None => self.result = len as i64,
        }
    }

    /// What was received is lost.
    pub fn fail(&mut self, errno: Errno) {
        self.result = -(errno as i64);
    }
}

pub struct Datagram {
    address: u64,
    pub len: usize,
    len_at: Option<u64>,
}

/// Runs `body` in a process of its own, hands each answer of the kernel to `tamper` before that process sees it, and
/// returns its exit status, which is what `body` has returned; 255 if it has panicked.
pub fn with_odd_answers(body: impl FnOnce() -> i32, mut tamper: impl FnMut(&mut Answer)) -> i32 {
    // SAFETY: glibc keeps malloc usable in the child, and the child takes no other lock that somebody may have
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            ptrace::traceme().unwrap();
            raise(Signal::SIGSTOP).unwrap();
            let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(255);
            // SAFETY: ends the process without running what belongs to the parent
            unsafe { libc::_exit(status) }
        }
    };
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Stopped(child, Signal::SIGSTOP));
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_EXITKILL
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK;
    ptrace::setoptions(child, options).unwrap();
    ptrace::syscall(child, None).unwrap();
    let mut inside = BTreeSet::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap();
        let Some(pid) = status.pid() else { continue };
        let mut signal = None;
        match status {
            WaitStatus::Exited(_, status) if pid == child => return status,
            WaitStatus::Signaled(_, signal, _) if pid == child => panic!("killed by {signal}"),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => continue,
            WaitStatus::PtraceSyscall(_) if inside.insert(pid) => {}
            WaitStatus::PtraceSyscall(_) => {
                inside.remove(&pid);
                let mut registers = ptrace::getregs(pid).unwrap();
                let args = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
                let result = registers.rax as i64;
                let mut answer = Answer { pid, call: registers.orig_rax as libc::c_long, args, result };
                tamper(&mut answer);
                if answer.result != result {
                    registers.rax = answer.result as u64;
                    ptrace::setregs(pid, registers).unwrap();
                }
            }
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {} // a new thread
            WaitStatus::Stopped(_, other) => signal = Some(other),
            _ => {}
        }
        if let Err(e) = ptrace::syscall(pid, signal) {
            assert_eq!(e, Errno::ESRCH); // it was killed meanwhile
        }
    }
}
