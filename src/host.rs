//! The process that the library lives in: where its errors, its log lines and its generated names go to or come from.
//!
//! In a process with libvirt, they are libvirt's: the C ABI finds it. Elsewhere errors stay with the thread that met them,
//! and log lines go to the caller's function or, with `VIRNETDEVTAP_DEBUG=1`, to standard error.

use crate::error::Error;
use crate::fork;
use crate::kernel::IfName;
use once_cell::race::{OnceBool, OnceBox};
use std::cell::RefCell;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// libvirt's `virLogPriority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Priority {
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
        })
    }
}

/// A libvirt that lives in the same process.
pub(crate) trait Host: Sync {
    /// Makes it the calling thread's last error, which libvirt logs and shows to its user.
    fn report(&self, error: &Error, function: &str);
    fn log(&self, priority: Priority, text: &str);
    /// Does anybody read lines of this priority just now?
    fn wants(&self, priority: Priority) -> bool;
    /// The next name that no device has, with a number between the two.
    fn generate_name(&self, prefix: &[u8], suffix: &[u8]) -> Option<IfName>;
    /// As in `LIBVIR_VERSION_NUMBER`: 10.8.0 is 10008000.
    #[cfg(feature = "preload")]
    fn version(&self) -> u64;
}

/// Looks for the host. It may come into the process at any time, so it is looked for until it is found.
pub(crate) type FindHost = fn() -> Option<&'static dyn Host>;

static FIND_HOST: OnceBox<FindHost> = OnceBox::new();

/// Says how to find the host; the first one counts.
pub(crate) fn set_find_host(find: FindHost) {
    FIND_HOST.get_or_init(|| Box::new(find));
}

/// The libvirt of this process, if it has one.
pub(crate) fn libvirt() -> Option<&'static dyn Host> {
    FIND_HOST.get().and_then(|find| find())
}

/// Takes a log line.
pub type LogFunc = dyn Fn(Priority, &str) + Send + Sync;

pub(crate) type LogSlot = Option<Arc<LogFunc>>;

static LOG_FUNC: Mutex<LogSlot> = Mutex::new(None);

pub(crate) fn lock_log_func() -> MutexGuard<'static, LogSlot> {
    LOG_FUNC.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends log lines to `func`, or back to where they went before with None. A call that is under way in another thread
/// may still use the former function for the line that it is writing.
pub fn set_log_func(func: Option<Arc<LogFunc>>) {
    fork::protect();
    let former = std::mem::replace(&mut *lock_log_func(), func);
    drop(former); // may do anything, so not under the lock
}

thread_local! {
    static LAST_ERROR: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Reports an error that a call to the library returns: keeps it for the thread and logs it. Errors that the library
/// gets over by itself are not reported.
pub(crate) fn report(error: &Error, function: &str) {
    LAST_ERROR.with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = Some(error.clone());
        }
    });
    match libvirt() {
        Some(host) => host.report(error, function),
        None => log(Priority::Error, format_args!("{function}: {error}")),
    }
}

/// The last error that a call returned in this thread.
#[must_use]
pub fn last_error() -> Option<Error> {
    LAST_ERROR.with(|last| last.try_borrow().ok().and_then(|last| last.clone()))
}

/// Writes a log line. The text is only made if somebody reads it.
pub(crate) fn log(priority: Priority, text: fmt::Arguments<'_>) {
    fork::protect();
    // the lock is given back before the caller's function runs, which may call us again
    let func = lock_log_func().clone();
    if let Some(func) = func {
        func(priority, &text.to_string());
    } else if let Some(host) = libvirt() {
        if host.wants(priority) {
            host.log(priority, &text.to_string());
        }
    } else if debug_wanted() {
        let line = format!("virnetdevtap: {priority}: {text}\n");
        // not by way of the standard library's lock, which a forked child may find taken; and nowhere to complain to
        let _ = nix::unistd::write(std::io::stderr().as_fd(), line.as_bytes());
    }
}

fn debug_wanted() -> bool {
    static WANTED: OnceBool = OnceBool::new();
    WANTED.get_or_init(|| std::env::var_os("VIRNETDEVTAP_DEBUG").is_some_and(|value| value == "1"))
}

macro_rules! info {
    ($($arg:tt)*) => { $crate::host::log($crate::host::Priority::Info, format_args!($($arg)*)) };
}
macro_rules! warning {
    ($($arg:tt)*) => { $crate::host::log($crate::host::Priority::Warn, format_args!($($arg)*)) };
}
pub(crate) use {info, warning};
