//! Each system call of a function fails once: the function does its work or fails, and there is nothing in between.

use super::api::Outcome;
use super::link::{fdb, links, vlans};
use super::process::{Forked, open_files};
use super::state::{DIR, differences, features, read_queue};
use super::steps::{Call, Fate, piece, watch};
use super::{count, figure, is_deep, share};
use nix::errno::Errno;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// The state of the machine after a success, and what the child has to say.
const REFERENCE: &str = "/tmp/reference";
const COMPLAINT: &str = "/tmp/complaint";
const FAILED: &str = "/tmp/failed";
/// What stands for a port that a switch's program has been asked for.
pub const BOUND: &str = "/tmp/bound";
/// Calls of one kind that are looked at in one function; more of them are the same loop again.
const OF_A_KIND: usize = 24;
/// Runs for each function if not all are made.
const SAMPLE: usize = 5;
const KILLS: usize = 8;
/// Where processes are slow, so few of the functions' circumstances are tried.
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
    runs: usize,
    failed: usize,
    calls: usize,
    covered: usize,
    kinds: BTreeSet<i64>,
    complaints: Vec<String>,
}

impl Tally {
    /// Makes each system call of the scenario fail in each way that it can.
    pub fn each_call_fails<T, R>(&mut self, scenario: &Scenario<'_, T, R>) {
        let number = scenario.name.bytes().map(usize::from).sum::<usize>();
        if number % count(1, OF_SO_MANY) != 0 {
            return;
        }
        let calls = self.undisturbed(scenario);
        let mut seen: BTreeMap<(i64, u64), usize> = BTreeMap::new();
        let mut plans = Vec::new();
        let mut directories = BTreeSet::new();
        for call in &calls {
            match call.number {
                libc::SYS_getdents64 => drop(directories.insert(call.args[0])),
                libc::SYS_close if directories.remove(&call.args[0]) => continue, // has nothing to fail with
                _ => {}
            }
            let kind = (call.number, if call.number == libc::SYS_ioctl { call.args[1] } else { 0 });
            let before = seen.entry(kind).or_default();
            *before += 1;
            if *before <= OF_A_KIND {
                plans.extend(fates(call).into_iter().map(|fate| (call, fate)));
            }
        }
        let step = if is_deep() { 1 } else { plans.len().div_ceil(SAMPLE).max(1) };
        let first = number % step;
        let (mut runs, mut failed) = (0, 0);
        let mut covered = BTreeSet::new();
        for (call, fate) in share(plans.into_iter().skip(first).step_by(step)) {
            failed += usize::from(self.one_call_fails(scenario, call, fate));
            runs += 1;
            covered.insert((call.thread, call.at));
            self.kinds.insert(call.number);
        }
        figure(&format!(
            "{}: {runs} runs, {} of {} system calls, {failed} made it fail",
            scenario.name,
            covered.len(),
            calls.len()
        ));
        self.runs += runs;
        self.failed += failed;
        self.calls += calls.len();
        self.covered += covered.len();
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

    fn one_call_fails<T, R>(&mut self, scenario: &Scenario<'_, T, R>, call: &Call, fate: Fate) -> bool {
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
        failed.is_ok()
    }

    /// Says what was done; fails if anything was not as it should.
    pub fn finish(self, functions: &str) {
        figure(&format!(
            "{functions}: {} runs, {} of {} system calls of {} kinds failed once, {} times with a failure of the function",
            self.runs,
            self.covered,
            self.calls,
            self.kinds.len(),
            self.failed
        ));
        assert!(self.complaints.is_empty(), "{} complaints:\n{}", self.complaints.len(), self.complaints.join("\n"));
    }
}

fn told(call: &Call, fate: Fate) -> String {
    format!("thread {} call {}, number {} {:x?}: {fate:?}", call.thread, call.at, call.number, &call.args[..4])
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

/// The tap was held for a moment more when it was looked at before, since somebody looked at the files of those who had.
fn was_looked_at(difference: &str) -> bool {
    difference.ends_with(r#"/numqueues: "01:00:00:00" -> "00:00:00:00""#) || difference.contains("/rest/queue: null -> [")
}

/// Deletes all interfaces, and what was recorded.
pub fn empty() {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let names = super::net::interfaces();
        if names.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "{names:?} do not go");
        for name in names {
            let _ = super::net::try_ip(&format!("link set {name} group 7")); // some may go by themselves at this moment
        }
        let _ = super::net::try_ip("link del group 7");
    }
    let _ = std::fs::remove_dir_all(Path::new(DIR).parent().unwrap());
    let _ = std::fs::remove_file(BOUND);
}

/// Everything in this network namespace and among the records.
pub fn machine() -> Value {
    loop {
        if let Some(all) = look_at_machine() {
            return all;
        }
    }
}

/// None: something has just gone.
fn look_at_machine() -> Option<Value> {
    let mut all = json!({});
    let mut bridges = false;
    for mut link in links() {
        let name = link["ifname"].as_str().unwrap().to_owned();
        bridges |= link["linkinfo"]["info_kind"] == "bridge";
        // what follows from the carrier comes up to a second later; a bridge keeps the limits of the ports that it had,
        // and a link that was up its queueing discipline
        link.as_object_mut()
            .unwrap()
            .retain(|key, _| !matches!(key.as_str(), "operstate" | "qdisc" | "tso_max_size" | "tso_max_segs"));
        if let Some(flags) = link["flags"].as_array_mut() {
            flags.retain(|flag| flag != "NO-CARRIER" && flag != "LOWER_UP");
        }
        if let Some(port) = link.pointer_mut("/linkinfo/info_slave_data").and_then(Value::as_object_mut) {
            port.retain(|key, _| key != "state" && !key.starts_with("designated_") && !key.ends_with("_flag"));
        }
        let sysfs = |file| super::net::sysfs(&name, file);
        let inode = std::fs::metadata(Path::new("/sys/class/net").join(&name)).ok()?.ino();
        let rest = json!({
            "tun": [sysfs("tun_flags"), sysfs("owner"), sysfs("group")], "inode": inode,
            "queue": read_queue(&name), "features": features(&name)?,
        });
        all[&name] = json!({ "link": link, "rest": rest });
    }
    if bridges {
        for (port, vlans) in vlans() {
            all[port]["VLANs"] = json!(vlans);
        }
        all["bridges"]["fdb"] = json!(fdb(None));
    }
    for entry in std::fs::read_dir(DIR).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        all["records"][entry.file_name().to_str().unwrap()] = json!(text);
    }
    all["bound"] = json!(Path::new(BOUND).exists());
    Some(all)
}

/// Without what is different each time: indexes, inodes, addresses that the kernel made up.
fn without_identities(before: &Value, mut machine: Value) -> Value {
    // a number that was given out is not given out again
    let names: Vec<_> = machine.as_object().unwrap().keys().filter(|name| name.starts_with("vnet")).cloned().collect();
    for name in names {
        let mut device = machine.as_object_mut().unwrap().remove(&name).unwrap();
        device["link"]["ifname"] = Value::Null;
        machine["vnet%d"] = device;
    }
    for (name, device) in machine.as_object_mut().unwrap() {
        if let Some(rest) = device.get_mut("rest") {
            rest.as_object_mut().unwrap().remove("inode");
        }
        if let Some(link) = device.get_mut("link").and_then(Value::as_object_mut) {
            for key in ["ifindex", "inet6_addr_gen_mode"] {
                link.remove(key);
            }
            if before.get(name).is_none_or(|before| before["link"]["address"] == link["address"]) {
                link.remove("address");
            }
            if let Some(Value::Object(info)) = link.get_mut("linkinfo") {
                for data in ["info_data", "info_slave_data"] {
                    if let Some(Value::Object(data)) = info.get_mut(data) {
                        data.retain(|key, _| !matches!(key.as_str(), "root_id" | "bridge_id" | "no" | "id"));
                    }
                }
            }
        }
        if name == "records" {
            for text in device.as_object_mut().unwrap().values_mut() {
                *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
                without_numbers(text);
            }
        }
    }
    if let Some(bridges) = machine.get_mut("bridges").and_then(Value::as_object_mut) {
        bridges.remove("fdb");
    }
    machine
}

/// Which device a record means is not the same each time; that it says so, is.
fn without_numbers(record: &mut Value) {
    for (key, value) in record.as_object_mut().unwrap() {
        match key.as_str() {
            "ifindex" | "inode" => *value = json!(value.is_number()),
            _ if value.is_object() => without_numbers(value),
            _ => {}
        }
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
    let calls = watched.calls;
    let step = if is_deep() { 1 } else { calls.len().div_ceil(count(KILLS, 2)).max(1) };
    let mut complaints = Vec::new();
    let mut killed = 0;
    for call in share(calls.iter().skip(name.len() % step).step_by(step)) {
        empty();
        let made = setup();
        killed += usize::from(watch(Some((call, Fate::Killed)), || piece(|| life(&made))).met);
        if catch_unwind(AssertUnwindSafe(|| Forked::run(|| after(&made)).join())).is_err() {
            complaints.push(told(call, Fate::Killed));
            eprintln!("COMPLAINT: {name}: {}", told(call, Fate::Killed));
        }
    }
    empty();
    figure(&format!("{name}: killed at {killed} of {} system calls", calls.len()));
    assert!(complaints.is_empty(), "{name}: {complaints:#?}");
}

/// The differences between two looks at the machine, but for what a device that was made anew cannot have back.
pub fn not_as_before(before: &Value, now: &Value) -> Vec<String> {
    let mut before = before.clone();
    for (name, device) in before.as_object_mut().unwrap() {
        let Some(now) = now.get(name).filter(|now| now["rest"]["inode"] != device["rest"]["inode"]) else { continue };
        device["rest"]["inode"] = now["rest"]["inode"].clone();
        device["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    }
    let mut differences = differences("", &before, now);
    differences.retain(|line| !was_looked_at(line));
    differences
}
