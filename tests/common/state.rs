//! Save, hold, restore as a manager calls them; what a device looks like before and after, read without the library.

use super::api::Failure;
use super::link::{fdb, link, vlans};
use super::net::{gone, ip, soon, sysfs};
use super::tun;
use nix::errno::Errno;
use serde_json::{Value, json};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use virnetdevtap::IfName;
use virnetdevtap::host::{Priority, set_log_func};
use virnetdevtap::state::{self, Fields, RestoreFlags};
use virnetdevtap::tap::interface_name;

/// Where the records are.
pub const DIR: &str = "/tmp/state/taps";

type Outcome<T> = Result<T, Failure>;

fn name_of(name: &str) -> IfName {
    interface_name(name.as_bytes()).unwrap()
}

pub fn save(name: &str) -> Outcome<()> {
    Ok(state::save(&name_of(name), DIR.as_ref())?)
}

pub fn hold(name: &str, queues: &[OwnedFd]) -> Outcome<()> {
    let queues: Vec<_> = queues.iter().map(AsFd::as_fd).collect();
    Ok(state::hold(&name_of(name), DIR.as_ref(), &queues)?)
}

pub fn reclaim(name: &str, pid: i32) -> Outcome<()> {
    Ok(state::reclaim(&name_of(name), DIR.as_ref(), pid)?)
}

pub fn check(name: &str) -> Outcome<Fields> {
    Ok(state::check(&name_of(name), DIR.as_ref())?)
}

pub fn restore(name: &str) -> Outcome<Fields> {
    restore_with(name, RestoreFlags::empty())
}

pub fn restore_with(name: &str, flags: RestoreFlags) -> Outcome<Fields> {
    Ok(state::restore(&name_of(name), None, DIR.as_ref(), flags)?)
}

pub fn discard(name: &str) -> Outcome<()> {
    Ok(state::discard(&name_of(name), DIR.as_ref())?)
}

pub fn list() -> Vec<String> {
    state::list(DIR.as_ref()).unwrap().iter().map(ToString::to_string).collect()
}

pub fn record(name: &str) -> String {
    format!("{DIR}/{name}.json")
}

/// Is nothing at all left in the directory?
pub fn nothing_recorded() {
    if let Ok(entries) = std::fs::read_dir(DIR) {
        let left: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// `ip tuntap del` is told EBUSY as long as anybody has a queue.
pub fn deletable(name: &str, multi_queue: bool) {
    ip(&format!("tuntap del dev {name} mode tap{}", if multi_queue { " multi_queue" } else { "" }));
    assert!(gone(name));
}

/// Warnings and errors that are logged while this lives.
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn start() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let target = lines.clone();
        set_log_func(Some(Arc::new(move |priority, text: &str| {
            if priority >= Priority::Warn {
                target.lock().unwrap().push(text.to_owned());
            }
        })));
        Self(lines)
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        set_log_func(None);
    }
}

/// Everything about a device that anybody can see: netlink, sysfs, ethtool's features, and,
/// from a tap that nobody holds, what a queue tells. `master`: its bridge, whose own address belongs to it.
pub fn look(name: &str, master: Option<&str>) -> Value {
    let mut all = json!({ "queue": read_queue(name) });
    all["link"] = link(name);
    let files = ["tun_flags", "owner", "group", "ifindex", "address", "type", "mtu", "tx_queue_len", "netdev_group", "carrier"];
    for file in files {
        all["sysfs"][file] = json!(sysfs(name, file));
    }
    all["inode"] = json!(std::fs::metadata(Path::new("/sys/class/net").join(name)).unwrap().ino());
    all["features"] = json!(features(name));
    if let Some(master) = master {
        all["bridge MAC"] = json!(sysfs(master, "address"));
        all["fdb"] = json!(fdb(Some(name)));
        all["VLANs"] = json!(vlans().get(name));
    }
    all
}

/// Waits until the device looks like this again; the kernel takes up to a second to tell about a carrier (linkwatch).
pub fn looks_like(before: &Value, name: &str, master: Option<&str>) {
    let operstate = before["link"]["operstate"].as_str().unwrap().to_lowercase();
    patiently(|| sysfs(name, "operstate").as_deref() == Some(operstate.as_str())); // before the first look, which is dear
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        let now = look(name, master);
        let differences = differences("", before, &now);
        if differences.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not as it was: {differences:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The state in which nothing moves any more: no carrier, nobody holds it.
pub fn look_at_rest(name: &str, master: Option<&str>) -> Value {
    look_when(name, master, || is_down(name))
}

/// The state when the kernel has told everybody what became of the carrier.
pub fn look_when_told(name: &str, master: Option<&str>) -> Value {
    look_when(name, master, || is_down(name) == (sysfs(name, "carrier").as_deref() != Some("1")))
}

/// What takes up to a second is not asked for too often: that is dear, too, on a slow machine.
fn patiently(so: impl Fn() -> bool) -> bool {
    soon(|| {
        so() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }
    })
}

fn is_down(name: &str) -> bool {
    sysfs(name, "operstate").as_deref() == Some("down")
}

fn look_when(name: &str, master: Option<&str>, wanted: impl Fn() -> bool) -> Value {
    assert!(patiently(&wanted), "{name} does not come to rest: {:#}", look(name, master));
    loop {
        let look = look(name, master);
        if wanted() {
            return look;
        }
    }
}

pub fn differences(path: &str, a: &Value, b: &Value) -> Vec<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let null = Value::Null;
            keys.iter()
                .filter(|key| !key.ends_with("_timer")) // spanning tree's clocks
                .flat_map(|key| differences(&format!("{path}/{key}"), a.get(*key).unwrap_or(&null), b.get(*key).unwrap_or(&null)))
                .collect()
        }
        _ if a == b => Vec::new(),
        _ => vec![format!("{path}: {a} -> {b}")],
    }
}

/// Header size and endianness, read by attaching with the flags that the device has and without a carrier. None: somebody
/// holds it, or it is none of ours.
pub fn read_queue(name: &str) -> Option<[i32; 2]> {
    let flags = tun::flags(name)?;
    let queue = tun::open(name, flags & !tun::PERSIST | tun::NO_CARRIER).ok()?;
    let mut values = [0; 2];
    for (request, value) in [libc::TUNGETVNETHDRSZ, libc::TUNGETVNETLE].into_iter().zip(&mut values) {
        // SAFETY: both write one int
        let rc = unsafe { libc::ioctl(queue.as_raw_fd(), request as _, &raw mut *value) };
        match Errno::result(rc) {
            Err(Errno::EBADFD) => return None, // a socket filter has kept it out
            result => assert_eq!(result, Ok(0)),
        }
    }
    Some(values)
}

/// ETHTOOL_GFEATURES, undecoded.
pub fn features(name: &str) -> Option<Vec<u32>> {
    let mut words = vec![0_u32; 2 + 4 * 8];
    words[0] = 0x3a;
    words[1] = 8;
    let name = CString::new(name).unwrap();
    // SAFETY: plain C data, for which all zero bytes are a value
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *target = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    const SIOCETHTOOL: u32 = 0x8946;
    // SAFETY: the kernel writes at most the 8 blocks that there is room for
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if Errno::result(rc) == Err(Errno::ENODEV) {
        return None; // it has just gone
    }
    assert_eq!(Errno::result(rc), Ok(0));
    Some(words)
}

/// A child process that ends when this is dropped.
pub struct KillOnDrop(pub std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A duplicate of the first queue of this tap that the process has, taken as a debugger would.
pub fn file_of(pid: nix::unistd::Pid, name: &str) -> OwnedFd {
    use std::os::fd::FromRawFd;
    let wanted = format!("\niff:\t{name}\n");
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let mut found = entries.filter(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default().contains(&wanted));
    let number: i32 = found.next().unwrap().file_name().to_str().unwrap().parse().unwrap();
    // SAFETY: pidfd_open() takes two numbers
    let process = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) }).unwrap();
    // SAFETY: the kernel has just made it for us
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    // SAFETY: pidfd_getfd() takes three numbers
    let file = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) }).unwrap();
    // SAFETY: as above
    unsafe { OwnedFd::from_raw_fd(file as i32) }
}
