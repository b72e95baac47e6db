//! Each system call of a function fails once: the function does its work or fails, and there is nothing in between.

use super::api::Outcome;
use super::machine::{empty, machine, was_looked_at, without_identities};
use super::net::ip;
use super::process::{Forked, open_files};
use super::state::differences;
use super::steps::{Call, Fate, piece, watch};
use super::{agreed, count, figure_of_all, is_deep, share, tun};
use nix::errno::Errno;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// The state of the machine after a success, and what the child has to say.
const REFERENCE: &str = "/tmp/reference";
const COMPLAINT: &str = "/tmp/complaint";
const FAILED: &str = "/tmp/failed";
/// Calls of one kind that are looked at in one function; more of them are the same loop again.
const OF_A_KIND: usize = 24;
/// Runs for each scenario if not all are made, and kills for each life.
const SAMPLE: usize = 5;
const KILLS: usize = 8;
/// Where processes are slow, one of so many scenarios is tried.
const OF_SO_MANY: usize = 8;

/// A function and the circumstances in which it is called.
pub struct Scenario<'a, T, R> {
    pub name: &'a str,
    /// Makes what the call needs; the machine is empty before. What it returns lives until all is over.
    pub setup: &'a dyn Fn() -> T,
    /// With a [`piece`] in it.
    pub call: &'a dyn Fn(&T) -> Outcome<R>,
    /// May a failing call have done a part of its work? The next one does the rest.
    pub partly: bool,
}

thread_local! {
    static UNSEEN: Cell<bool> = const { Cell::new(false) };
}

/// Is the fault of this run one by which something is not to be seen?
pub fn unseen() -> bool {
    UNSEEN.get()
}

/// What the tests of a binary have come to.
#[derive(Default)]
pub struct Tally {
    runs: Runs,
    calls: usize,
    faults: usize,
    kinds: BTreeSet<i64>,
    complaints: Vec<String>,
    /// Can this be tried on slow machines only?
    only_there: bool,
}

impl Tally {
    /// For what only other kernels can do, which run in a slow machine.
    pub fn on_another_kernel() -> Self {
        Self { only_there: true, ..Self::default() }
    }

    /// A call that fails and has done nothing, or does all.
    pub fn whole<T, R>(&mut self, name: &str, setup: &dyn Fn() -> T, call: &dyn Fn(&T) -> Outcome<R>) {
        self.each_call_fails(&Scenario { name, setup, call: &|made: &T| piece(|| call(made)), partly: false });
    }

    /// A call that is to be made again if it fails.
    pub fn again<T, R>(&mut self, name: &str, setup: &dyn Fn() -> T, call: &dyn Fn(&T) -> Outcome<R>) {
        self.each_call_fails(&Scenario { name, setup, call: &|made: &T| piece(|| call(made)), partly: true });
    }

    /// Makes each system call of the scenario fail in each way that it can.
    pub fn each_call_fails<T, R>(&mut self, scenario: &Scenario<'_, T, R>) {
        let number = scenario.name.bytes().map(usize::from).sum::<usize>();
        if !self.only_there && number % count(1, OF_SO_MANY) != 0 {
            return;
        }
        let calls = agree(scenario.name, &self.undisturbed(scenario));
        let mut seen: BTreeMap<(i64, u64), usize> = BTreeMap::new();
        let mut plans = Vec::new();
        let mut directories = BTreeSet::new();
        for call in &calls {
            match call.number {
                libc::SYS_getdents64 => drop(directories.insert(call.args[0])),
                libc::SYS_close if directories.remove(&call.args[0]) => continue, // has nothing to fail with
                _ => {}
            }
            let before = seen.entry(call.kind()).or_default();
            *before += 1;
            if *before <= OF_A_KIND {
                plans.extend(fates(call).into_iter().map(|fate| (call, fate)));
            }
        }
        let step = if is_deep() { 1 } else { plans.len().div_ceil(count(SAMPLE, 3)).max(1) };
        let first = number % step;
        self.kinds.extend(plans.iter().map(|(call, _)| call.number));
        self.calls += calls.len();
        self.faults += plans.len();
        let what = format!("of {} faults in {} system calls", plans.len(), calls.len());
        let mut runs = Runs::default();
        for (call, fate) in share(plans.into_iter().skip(first).step_by(step)) {
            self.one_call_fails(scenario, call, fate, &mut runs);
        }
        runs.figure(scenario.name, &what);
        self.runs.add(&runs);
    }

    /// The system calls of the scenario, which has to succeed twice with the same result; the first of them is the reference.
    fn undisturbed<T, R>(&mut self, scenario: &Scenario<'_, T, R>) -> Vec<Call> {
        let _ = std::fs::remove_file(REFERENCE);
        let mut calls = Vec::new();
        for _ in 0..2 {
            empty();
            let watched = watch(None, || run(scenario, false, false));
            assert_eq!(watched.status, Some(0), "{}: {}", scenario.name, complaint());
            calls = watched.calls;
        }
        assert!(!Path::new(FAILED).exists(), "{}: {}", scenario.name, complaint());
        calls
    }

    fn one_call_fails<T, R>(&mut self, scenario: &Scenario<'_, T, R>, call: &Call, fate: Fate, runs: &mut Runs) {
        empty();
        let done = matches!(fate, Fate::Fails(Errno::EINTR)) || call.number == libc::SYS_close;
        let watched = watch(Some((call, fate)), || run(scenario, done, out_of_reach(fate)));
        let failed = std::fs::read_to_string(FAILED);
        if watched.status != Some(0) {
            let met = watched.calls.iter().rev().take(usize::from(watched.met)).next();
            let text = complaint();
            self.complaints.push(format!("{}: {} (met {met:?}): {text}", scenario.name, told(call, fate)));
            eprintln!("COMPLAINT: {}", self.complaints.last().unwrap());
        } else if std::env::var_os("VIRNETDEVTAP_TELL").is_some() {
            eprintln!("TOLD: {}: {}: {failed:?}", scenario.name, told(call, fate));
        }
        runs.made += usize::from(watched.met);
        runs.not_met += usize::from(!watched.met);
        runs.failed += usize::from(failed.is_ok());
    }

    /// Says what was done; fails if anything was not as it should.
    pub fn finish(self, functions: &str) {
        let what = format!("of {} faults in {} system calls of {} kinds", self.faults, self.calls, self.kinds.len());
        self.runs.figure(&format!("All of {functions}"), &what);
        assert!(self.complaints.is_empty(), "{} complaints:\n{}", self.complaints.len(), self.complaints.join("\n"));
    }
}

#[derive(Default)]
struct Runs {
    made: usize,
    failed: usize,
    not_met: usize,
}

impl Runs {
    fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.failed += other.failed;
        self.not_met += other.not_met;
    }

    fn figure(&self, name: &str, what: &str) {
        let text = format!("{name}: {{}} {what}; {{}} made it fail, {{}} more were not met");
        figure_of_all(&text, &[self.made, self.failed, self.not_met]);
    }
}

fn told(call: &Call, fate: Fate) -> String {
    format!("thread {} call {}, number {} {:x?}: {fate:?}", call.thread, call.at, call.number, &call.args[..4])
}

/// How many calls there are is not always the same. All who share the work go by what one of them has seen.
pub fn agree(name: &str, calls: &[Call]) -> Vec<Call> {
    let calls = calls.iter().map(|call| json!([call.thread, call.at, call.nth, call.number, call.args])).collect();
    let call = |call: &Value| {
        let number = |at: usize| call[at].as_u64().unwrap() as usize;
        let args = std::array::from_fn(|at| call[4][at].as_u64().unwrap());
        Call { thread: number(0), at: number(1), nth: number(2), number: call[3].as_i64().unwrap(), args }
    };
    agreed(name, calls).as_array().unwrap().iter().map(call).collect()
}

/// A call whose right outcome is this error.
pub fn refused<R: std::fmt::Debug>(result: Outcome<R>, errno: Errno, words: &str) -> Outcome<()> {
    match result {
        Err(failure) if failure.errno == errno && failure.text.contains(words) => Ok(()),
        Err(failure) => Err(failure),
        Ok(result) => panic!("{result:?}"),
    }
}

/// A persistent tap that nobody holds, of the sort that its name tells.
pub fn tap(name: &str) {
    let (flags, last) = match name {
        "old0" => (tun::TAP | tun::NO_PI, 7),
        "pi0" => (tun::TAP | tun::VNET_HDR, 8),
        "multi0" => (tun::TAP | tun::NO_PI | tun::MULTI_QUEUE, 9),
        "napi0" => (tun::TAP | tun::NO_PI | tun::NAPI, 10),
        _ => panic!("{name}"),
    };
    tun::make(name, flags);
    ip(&format!("link set {name} address 02:00:00:00:00:{last:02x} group {}", if name == "pi0" { 5 } else { 0 }));
}

/// All of them.
pub fn taps() {
    ["old0", "pi0", "multi0", "napi0"].iter().for_each(|name| tap(name));
}

fn complaint() -> String {
    std::fs::read_to_string(COMPLAINT).unwrap_or_default()
}

/// In a process of its own, of which one system call may fail. `must_succeed`: nevertheless. `unseen`: what this call
/// would tell may be missing in a record.
fn run<T, R>(scenario: &Scenario<'_, T, R>, must_succeed: bool, unseen: bool) {
    UNSEEN.set(unseen);
    let _ = std::fs::remove_file(FAILED);
    let _ = std::fs::remove_file(COMPLAINT);
    std::panic::set_hook(Box::new(|info| std::fs::write(COMPLAINT, info.to_string()).unwrap()));
    let made = (scenario.setup)();
    let files = open_files();
    let before = machine();
    let mut result = (scenario.call)(&made);
    nothing_runs();
    if let Err(failure) = &result {
        assert!(!must_succeed, "this has to be got over: {failure:?}");
        let why = nix::errno::Errno::desc(failure.errno);
        std::fs::write(FAILED, &failure.text).unwrap();
        assert!(failure.errno != Errno::UnknownErrno && !failure.text.contains("bug in"), "{failure:?}");
        assert!(failure.text.len() > why.len() + 10, "does not say what failed: {failure:?}");
        if !scenario.partly {
            same(&before, "as before a failure");
            assert_eq!(open_files(), files, "files after {failure:?}");
        }
        result = (scenario.call)(&made);
        assert!(result.is_ok(), "the next call: {:?}", result.err());
        nothing_runs();
    }
    let now =
        || json!({ "machine": without_identities(&before, machine()), "files": open_files().len() as i64 - files.len() as i64 });
    match std::fs::read_to_string(REFERENCE) {
        Ok(reference) => {
            let reference = serde_json::from_str(&reference).unwrap();
            becomes(&reference, now, "as after a success", unseen);
        }
        Err(_) => std::fs::write(REFERENCE, now().to_string()).unwrap(),
    }
}

/// No other thread, at last, and no child.
fn nothing_runs() {
    let end = Instant::now() + Duration::from_secs(5);
    while std::fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        assert!(Instant::now() < end, "a thread is left");
        std::thread::sleep(Duration::from_micros(500));
    }
    let child = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    assert!(matches!(child, Err(Errno::ECHILD) | Ok(nix::sys::wait::WaitStatus::StillAlive)), "a child is left: {child:?}");
}

fn same(before: &Value, what: &str) {
    becomes(before, machine, what, false);
}

/// Says this that something is not there, or not for the caller? Then the library does without it.
fn out_of_reach(fate: Fate) -> bool {
    use Errno::*;
    matches!(fate, Fate::Fails(EPERM | EACCES | EOPNOTSUPP | ENODEV | ENOPROTOOPT | ENOSYS))
}

/// What the last close of a file brings about may come late, if somebody looks at our files at this moment.
fn becomes(wanted: &Value, now: impl Fn() -> Value, what: &str, unseen: bool) {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let mut differences = differences("", wanted, &now());
        // NAPI flags are to be seen in sysfs only, and who cannot see them cannot keep them
        let may_be = |line: &String| {
            line.contains("/records/") && (line.ends_with("-> null") || line.ends_with("-> false"))
                || line.contains("812\"")
                || line.contains("/rest/features: ") // what ethtool asks for: its caller has to be CAP_NET_ADMIN
                || line.contains("/offloads_requested: ")
        };
        differences.retain(|line| !was_looked_at(line));
        differences.retain(|line| !unseen || !may_be(line));
        if differences.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "not {what}: {differences:#?} after {:?}", std::fs::read_to_string(FAILED));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How this system call can fail.
fn fates(call: &Call) -> Vec<Fate> {
    use Errno::*;
    use Fate::{Fails, FailsDone};
    let fails = |errnos: &[Errno]| errnos.iter().map(|errno| Fails(*errno)).collect::<Vec<_>>();
    let both = |errnos: &[Errno]| [fails(errnos), errnos.iter().map(|errno| FailsDone(*errno)).collect()].concat();
    let with_done = |errnos: &[Errno], done: Errno| [fails(errnos), vec![FailsDone(done)]].concat();
    match call.number {
        libc::SYS_openat if call.args[2] & libc::O_CREAT as u64 != 0 => fails(&[EMFILE, ENOSPC, EROFS, EINTR]),
        libc::SYS_openat => fails(&[EMFILE, ENOMEM, EACCES, EINTR]),
        libc::SYS_socket => fails(&[EMFILE, ENOBUFS, EACCES]),
        libc::SYS_socketpair | libc::SYS_pipe2 | libc::SYS_eventfd2 => fails(&[EMFILE, ENOMEM]),
        libc::SYS_setsockopt | libc::SYS_getsockopt => fails(&[ENOPROTOOPT, ENOMEM]),
        libc::SYS_sendto | libc::SYS_sendmsg => fails(&[ENOBUFS, EPERM, EINTR]),
        libc::SYS_recvfrom if call.args[2] == 8 => fails(&[EINTR]), // how the standard library hears from a new process
        // an answer that is lost, and one that comes after an error
        libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => with_done(&[ENOBUFS, ENOMEM, EINTR], ENOBUFS),
        libc::SYS_ioctl => match call.args[1] {
            libc::TUNSETIFF => fails(&[EPERM, ENOMEM, EBUSY]),
            libc::TUNGETIFF => fails(&[EPERM]), // EBADFD is no failure, but says that the device is gone
            0x4010_54d5 => Vec::new(),          // TUNATTACHFILTER: of an empty filter, which never succeeds
            0x8946 => fails(&[EOPNOTSUPP, EPERM, ENODEV]), // SIOCETHTOOL
            _ => fails(&[EPERM, ENOMEM]),
        },
        libc::SYS_close => vec![FailsDone(EIO), FailsDone(EINTR)],
        libc::SYS_fcntl if call.args[1] == libc::F_DUPFD_CLOEXEC as u64 => fails(&[EMFILE]),
        libc::SYS_fcntl => fails(&[EPERM]),
        libc::SYS_fstat | libc::SYS_newfstatat | libc::SYS_statx => fails(&[ENOMEM, EIO, EACCES]),
        libc::SYS_flock => with_done(&[ENOLCK, EINTR], ENOLCK),
        libc::SYS_read => fails(&[EIO, EINTR, ENOMEM]),
        libc::SYS_write => fails(&[ENOSPC, EIO, EINTR]),
        libc::SYS_fsync | libc::SYS_fdatasync => both(&[EIO, ENOSPC]),
        libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_rename => both(&[EIO, ENOSPC]),
        libc::SYS_unlinkat | libc::SYS_unlink => both(&[EIO, EACCES]),
        libc::SYS_mkdir | libc::SYS_mkdirat => with_done(&[ENOSPC, EACCES], EIO),
        libc::SYS_getdents64 => fails(&[EIO, ENOMEM]),
        libc::SYS_readlink | libc::SYS_readlinkat => fails(&[ENOMEM, EACCES, ENOENT]),
        libc::SYS_inotify_init1 => fails(&[EMFILE, ENOMEM]),
        libc::SYS_inotify_add_watch => fails(&[ENOSPC, ENOMEM]),
        libc::SYS_poll | libc::SYS_ppoll => fails(&[EINTR, ENOMEM]),
        libc::SYS_clock_nanosleep => fails(&[EINTR]),
        libc::SYS_clone3 | libc::SYS_clone | libc::SYS_fork | libc::SYS_vfork => fails(&[EAGAIN, ENOMEM]),
        // of a thread's stack; in the thread itself, what the standard library starts it with, which ends the process
        libc::SYS_mmap | libc::SYS_mprotect if call.thread == 0 => fails(&[ENOMEM]),
        libc::SYS_pidfd_open => fails(&[EMFILE, ENOSYS, ESRCH]),
        libc::SYS_pidfd_getfd => fails(&[EPERM, EMFILE, ESRCH]),
        libc::SYS_setns => fails(&[EPERM, ENOMEM]),
        libc::SYS_wait4 | libc::SYS_waitid => fails(&[EINTR]),
        libc::SYS_lseek => fails(&[EINVAL]),
        // the rest cannot fail, or belongs to the C library's threads and locks
        _ => Vec::new(),
    }
}

/// Kills `life` at each of its system calls, and once it is done; `after` finds what is there then, in a process of its own.
/// `setup` makes what they need, in the empty machine.
pub fn killed_at_each_call<T>(name: &str, setup: &dyn Fn() -> T, life: &dyn Fn(&T), after: &dyn Fn(&T)) {
    empty();
    let made = setup();
    let watched = watch(None, || piece(|| life(&made)));
    assert_eq!(watched.status, Some(0), "{name}");
    drop(made);
    let calls = agree(name, &watched.calls);
    let step = if is_deep() { 1 } else { calls.len().div_ceil(count(KILLS, 1)).max(1) };
    let mut complaints = Vec::new();
    let mut killed = 0;
    for call in share(calls.iter().skip(name.len() % step).step_by(step)) {
        empty();
        let made = setup();
        let here = Call::whichever(call.thread, call.at);
        killed += usize::from(watch(Some((&here, Fate::Killed)), || piece(|| life(&made))).met);
        if catch_unwind(AssertUnwindSafe(|| Forked::run(|| after(&made)).join())).is_err() {
            complaints.push(told(call, Fate::Killed));
            eprintln!("COMPLAINT: {name}: {}", told(call, Fate::Killed));
        }
    }
    empty();
    figure_of_all(&format!("{name}: killed at {{}} of {} system calls", calls.len()), &[killed]);
    assert!(complaints.is_empty(), "{name}: {complaints:#?}");
}
