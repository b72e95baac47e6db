//! Processes: this one's open files and limits, another user's, and those that hold a tap.

use super::skip;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};

/// Nobody: a user without any right.
pub const NOBODY: u32 = 65534;

/// Goes on in a new process namespace and with a /proc of it, as a child of its first process: whatever is left when this
/// process ends is killed. For use between fork and exec, in a mount namespace of its own.
pub fn enter_namespace() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    go_on_in_child()?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    go_on_in_child()
}

/// What was this process waits for the child, and ends as it does.
fn go_on_in_child() -> std::io::Result<()> {
    // SAFETY: what follows makes system calls only
    let ForkResult::Parent { child } = unsafe { fork() }? else {
        // SAFETY: a system call without pointers
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        return Ok(());
    };
    // spawn() waits until nobody has its pipe, and who reads the output until nobody has that
    // SAFETY: nobody uses any of them
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    let status = loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => break status,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => break 128 + signal as i32,
            Err(e) if e != nix::errno::Errno::EINTR => break 255,
            _ => {} // the first process of a namespace gets the orphans
        }
    };
    // SAFETY: ends the process without running what belongs to the parent
    unsafe { libc::_exit(status) }
}

/// The numbers of this process's open files; not those by which ThreadSanitizer talks to its symbolizer.
pub fn open_files() -> BTreeSet<i32> {
    let sanitizers = if std::env::var_os("TSAN_OPTIONS").is_some() { "pipe:" } else { "/fd" };
    let dir = fs::read_dir("/proc/self/fd").unwrap();
    let links = dir.flatten().filter(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        !target.ends_with("/fd") && !target.starts_with(sanitizers) // the directory being read
    });
    links.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// How many threads this process has.
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Runs `call` with room for only this many more open files.
pub fn with_room_for<T>(files: usize, call: impl FnOnce() -> T) -> T {
    let open = open_files();
    let limit = (0..).filter(|fd| !open.contains(fd)).nth(files).unwrap();
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut old) }, 0);
    let new = libc::rlimit { rlim_cur: limit as libc::rlim_t, rlim_max: old.rlim_max };
    // SAFETY: setrlimit reads one rlimit
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const new) }, 0);
    let result = call();
    // SAFETY: as above
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const old) }, 0);
    result
}

/// A process that has a file of ours open and does nothing: `sleep`. It ends when this is dropped.
pub struct Holder(Child);

impl Holder {
    pub fn of(file: impl AsFd) -> Self {
        Self::in_namespace(file, false)
    }

    /// The same in a network namespace of its own.
    pub fn elsewhere(file: impl AsFd) -> Self {
        Self::in_namespace(file, true)
    }

    fn in_namespace(file: impl AsFd, own: bool) -> Self {
        let fd = file.as_fd().as_raw_fd();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let inherit = move || {
            // SAFETY: the parent has the file open, and so has its child
            let file = unsafe { BorrowedFd::borrow_raw(fd) };
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
            // SAFETY: a system call without pointers
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            if own {
                unshare(CloneFlags::CLONE_NEWNET)?;
            }
            Ok(())
        };
        // SAFETY: the closure makes system calls only
        unsafe { sleep.pre_exec(inherit) };
        Self(sleep.spawn().unwrap()) // spawn() returns when the child has called exec
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs `body` beside this one.
pub struct Forked(nix::unistd::Pid);

impl Forked {
    pub fn run(body: impl FnOnce()) -> Self {
        // SAFETY: glibc keeps malloc usable in the child, and the child takes no other lock that somebody may have
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                let ok = catch_unwind(AssertUnwindSafe(body)).is_ok();
                // SAFETY: ends the process without running what belongs to the parent
                unsafe { libc::_exit(i32::from(!ok)) }
            }
        }
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        self.0
    }

    /// Waits until it has ended; fails if `body` did.
    pub fn join(self) {
        assert_eq!(waitpid(self.0, None).unwrap(), WaitStatus::Exited(self.0, 0));
    }
}

/// Runs `body` in a process that belongs to nobody and has no capabilities. Skips the test without a second user id.
pub fn as_nobody(body: impl FnOnce()) {
    if fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) == Some("1") {
        skip("the user namespace has one user only");
    }
    Forked::run(|| {
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::setresgid(NOBODY.into(), NOBODY.into(), NOBODY.into()).unwrap();
        nix::unistd::setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into()).unwrap();
        // SAFETY: a system call without pointers; changing the user has made the process's own /proc files root's
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
        body();
    })
    .join();
}

/// A node with the given device number, for everybody. Skips the test where that is not allowed.
pub fn node(path: &str, (major, minor): (u64, u64), mode: u32) {
    if let Err(e) = mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor)) {
        skip(&format!("mknod: {e}"));
    }
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    if let Err(e) = fs::File::options().read(true).write(true).open(path) {
        skip(&format!("{path}: {e}"));
    }
}

/// The device number of /dev/net/tun (Documentation/admin-guide/devices.txt).
pub const TUN_NODE: (u64, u64) = (10, 200);

/// A shell script that is found before the program of this name.
pub fn stand_in(name: &str, script: &str) {
    let dir = "/tmp/bin";
    let path = format!("{dir}/{name}");
    fs::create_dir_all(dir).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let others = std::env::var("PATH").unwrap();
    if !others.starts_with(dir) {
        set_path(&format!("{dir}:{others}"));
    }
}

pub fn set_path(path: &str) {
    // SAFETY: the test's process has no other thread that looks at its environment
    unsafe { std::env::set_var("PATH", path) };
}
