//! The library as the tests call it: once as a Rust crate, once through its C functions.

use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use virnetdevtap::capi::{self, types::virDomainInterfaceStatsStruct};
use virnetdevtap::stats::interface_stats;
use virnetdevtap::tap::{self, CreateFlags, NameRequest, interface_name};

pub const NONE: u32 = 0;
pub const IFUP: u32 = 1;
pub const VNET_HDR: u32 = 2;
pub const PERSIST: u32 = 8;
pub const ALLOW_EXISTING: u32 = 16;

/// What a failing call tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: i32,
    pub errno: Errno,
    pub text: String,
}

pub type Outcome<T> = Result<T, Failure>;

/// What create makes.
#[derive(Debug)]
pub struct Made {
    pub name: String,
    pub queues: Vec<OwnedFd>,
}

/// rx_bytes, rx_packets, rx_errors, rx_dropped, and the same for tx.
pub type Counters = [u64; 8];

pub trait TapApi: Sync {
    fn create(&self, name: Option<&str>, tunpath: Option<&str>, queues: usize, flags: u32) -> Outcome<Made>;
    fn delete(&self, name: &str, tunpath: Option<&str>) -> Outcome<()>;
    fn name_of(&self, queue: BorrowedFd<'_>) -> Outcome<String>;
    fn stats(&self, name: &str) -> Outcome<Counters>;
    fn get_persist(&self, name: &str) -> Outcome<bool>;
    fn set_persist(&self, name: &str, tunpath: Option<&str>, persist: bool) -> Outcome<()>;
    fn holders(&self, name: &str) -> Outcome<Vec<i32>>;

    /// One queue, or a failed test.
    fn one(&self, name: &str, flags: u32) -> Made {
        self.create(Some(name), None, 1, flags).unwrap()
    }
}

pub struct Rust;

impl From<virnetdevtap::Error> for Failure {
    fn from(e: virnetdevtap::Error) -> Self {
        Self { code: e.code() as i32, errno: e.errno(), text: e.to_string() }
    }
}

fn c_string(text: Option<&str>) -> Option<CString> {
    text.map(|text| CString::new(text).unwrap())
}

impl TapApi for Rust {
    fn create(&self, name: Option<&str>, tunpath: Option<&str>, queues: usize, flags: u32) -> Outcome<Made> {
        let request = NameRequest::parse(name.map(str::as_bytes))?;
        let flags = CreateFlags::from_bits(flags).unwrap();
        let tap = tap::create(&request, c_string(tunpath).as_deref(), queues, flags)?;
        Ok(Made { name: tap.name().to_string(), queues: tap.into_queues() })
    }

    fn delete(&self, name: &str, tunpath: Option<&str>) -> Outcome<()> {
        Ok(tap::delete(&interface_name(name.as_bytes())?, c_string(tunpath).as_deref())?)
    }

    fn name_of(&self, queue: BorrowedFd<'_>) -> Outcome<String> {
        Ok(tap::name_of(queue)?.to_string())
    }

    fn stats(&self, name: &str) -> Outcome<Counters> {
        let s = interface_stats(&interface_name(name.as_bytes())?)?;
        Ok([s.rx_bytes, s.rx_packets, s.rx_errors, s.rx_dropped, s.tx_bytes, s.tx_packets, s.tx_errors, s.tx_dropped])
    }

    fn get_persist(&self, name: &str) -> Outcome<bool> {
        Ok(tap::get_persist(&interface_name(name.as_bytes())?)?)
    }

    fn set_persist(&self, name: &str, tunpath: Option<&str>, persist: bool) -> Outcome<()> {
        Ok(tap::set_persist(&interface_name(name.as_bytes())?, c_string(tunpath).as_deref(), persist)?)
    }

    fn holders(&self, name: &str) -> Outcome<Vec<i32>> {
        Ok(tap::holders(&interface_name(name.as_bytes())?)?.iter().map(|holder| holder.pid).collect())
    }
}

pub struct C;

/// The last error, which agrees with errno.
pub fn last_failure() -> Failure {
    let errno = Errno::last();
    let code = capi::virNetDevTapGetLastErrorCode();
    assert_eq!(capi::virNetDevTapGetLastErrorErrno(), errno as i32, "errno is that of the last error");
    let text = capi::virNetDevTapGetLastErrorMessage();
    // SAFETY: the library's string, valid until the next call of that function in this thread
    let text = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
    Failure { code, errno, text }
}

/// 0 is success, -1 a failure, and there is nothing else.
pub fn outcome(rc: i32) -> Outcome<()> {
    match rc {
        0 => Ok(()),
        -1 => Err(last_failure()),
        other => panic!("returned {other}"),
    }
}

fn pointer(text: Option<&CString>) -> *const libc::c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// A copy from malloc(), as libvirt's callers give it.
pub fn strdup(text: &CStr) -> *mut libc::c_char {
    // SAFETY: NUL-terminated
    unsafe { libc::strdup(text.as_ptr()) }
}

/// Takes over a string from malloc(), or NULL.
pub fn take_string(string: *mut libc::c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: NUL-terminated
    let text = unsafe { CStr::from_ptr(string) }.to_str().unwrap().to_owned();
    // SAFETY: from malloc(), and ours
    unsafe { libc::free(string.cast()) };
    Some(text)
}

impl TapApi for C {
    fn create(&self, name: Option<&str>, tunpath: Option<&str>, queues: usize, flags: u32) -> Outcome<Made> {
        const GUARD: i32 = -4711;
        let mut ifname = c_string(name).map_or(ptr::null_mut(), |name| strdup(&name));
        let given = ifname;
        let tunpath = c_string(tunpath);
        let mut slots = vec![-7; queues];
        slots.push(GUARD);
        // SAFETY: a string from malloc() or NULL, and as many slots as queues
        let rc =
            unsafe { capi::virNetDevTapCreate(&raw mut ifname, pointer(tunpath.as_ref()), slots.as_mut_ptr(), queues, flags) };
        let result = outcome(rc);
        assert_eq!(slots.pop(), Some(GUARD), "wrote past the slots");
        if result.is_err() {
            assert!(slots.iter().all(|&fd| fd == if queues <= 256 { -1 } else { -7 }), "{slots:?}");
            assert_eq!(ifname, given, "a failing call leaves the name");
        }
        let name = take_string(ifname);
        result.map(|()| {
            // SAFETY: the call has handed the files over
            let queues = slots.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
            Made { name: name.unwrap(), queues }
        })
    }

    fn delete(&self, name: &str, tunpath: Option<&str>) -> Outcome<()> {
        let (name, tunpath) = (c_string(Some(name)), c_string(tunpath));
        // SAFETY: strings, or NULL
        outcome(unsafe { capi::virNetDevTapDelete(pointer(name.as_ref()), pointer(tunpath.as_ref())) })
    }

    fn name_of(&self, queue: BorrowedFd<'_>) -> Outcome<String> {
        let mut name = ptr::null_mut();
        // SAFETY: a pointer to write to
        outcome(unsafe { capi::virNetDevTapGetName(queue.as_raw_fd(), &raw mut name) })?;
        Ok(take_string(name).unwrap())
    }

    fn stats(&self, name: &str) -> Outcome<Counters> {
        let plain = c_stats(name, false)?;
        let s = plain;
        let counters = [s.rx_bytes, s.rx_packets, s.rx_errs, s.rx_drop, s.tx_bytes, s.tx_packets, s.tx_errs, s.tx_drop];
        Ok(counters.map(|counter| u64::try_from(counter).unwrap()))
    }

    fn get_persist(&self, name: &str) -> Outcome<bool> {
        let name = c_string(Some(name));
        let mut persist = false;
        // SAFETY: a string, and a bool to write to
        outcome(unsafe { capi::virNetDevTapGetPersist(pointer(name.as_ref()), &raw mut persist) })?;
        Ok(persist)
    }

    fn set_persist(&self, name: &str, tunpath: Option<&str>, persist: bool) -> Outcome<()> {
        let (name, tunpath) = (c_string(Some(name)), c_string(tunpath));
        // SAFETY: strings, or NULL
        outcome(unsafe { capi::virNetDevTapSetPersist(pointer(name.as_ref()), pointer(tunpath.as_ref()), persist) })
    }

    fn holders(&self, name: &str) -> Outcome<Vec<i32>> {
        let name = c_string(Some(name));
        let mut pids = ptr::null_mut();
        // SAFETY: a string, and a pointer to write to
        let count = unsafe { capi::virNetDevTapGetHolders(pointer(name.as_ref()), &raw mut pids) };
        let Ok(count) = usize::try_from(count) else { return Err(outcome(count).unwrap_err()) };
        assert_eq!(pids.is_null(), count == 0);
        if count == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the call has made an array of that many
        let found = unsafe { std::slice::from_raw_parts(pids, count) }.to_vec();
        // SAFETY: from malloc(), and ours
        unsafe { libc::free(pids.cast()) };
        Ok(found)
    }
}

pub fn c_stats(name: &str, swapped: bool) -> Outcome<virDomainInterfaceStatsStruct> {
    let name = c_string(Some(name));
    let mut stats = virDomainInterfaceStatsStruct {
        rx_bytes: -9,
        rx_packets: -9,
        rx_errs: -9,
        rx_drop: -9,
        tx_bytes: -9,
        tx_packets: -9,
        tx_errs: -9,
        tx_drop: -9,
    };
    let untouched = stats;
    // SAFETY: a string, and a struct to write to
    let result = outcome(unsafe { capi::virNetDevTapInterfaceStats(pointer(name.as_ref()), &raw mut stats, swapped) });
    assert!(result.is_ok() || stats == untouched, "a failing call leaves the struct");
    result.map(|()| stats)
}
