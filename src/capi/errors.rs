//! The last error and the log, for processes without libvirt.

use super::types::{virNetDevTapLogFunc, virNetDevTapLogPriority};
use crate::host::{self, Priority};
use libc::{c_char, c_int, c_void};
use std::cell::RefCell;
use std::ffi::CString;
use std::sync::Arc;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// The text of the last error that a function of this library returned in this thread, such as
/// "Unable to delete tap device vnet0, it is held by qemu-system-x86 (pid 4711): Device or resource busy"; "no error"
/// if there was none. A success does not reset it.
///
/// The string is the library's, and valid until a function of the library fails again in this thread.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub extern "C" fn virNetDevTapGetLastErrorMessage() -> *const c_char {
    let text = host::last_error().map_or_else(|| "no error".to_owned(), |error| error.to_string());
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    MESSAGE.with(|message| {
        let Ok(mut message) = message.try_borrow_mut() else { return c"no error".as_ptr() };
        if *message != text {
            *message = text; // else the caller may still have the former pointer: printf("%s %s", this(), this())
        }
        message.as_ptr()
    })
}

/// libvirt's number (virErrorNumber) for the last error in this thread: 1 internal error, 8 invalid argument,
/// 38 system call failed, 55 operation invalid, 67 configuration unsupported; 0 if there was none.
#[unsafe(no_mangle)]
pub extern "C" fn virNetDevTapGetLastErrorCode() -> c_int {
    host::last_error().map_or(0, |error| error.code() as c_int)
}

/// The errno of the last error in this thread, 0 if there was none. errno itself has the same value when a function
/// returns -1.
#[unsafe(no_mangle)]
pub extern "C" fn virNetDevTapGetLastErrorErrno() -> c_int {
    host::last_error().map_or(0, |error| error.errno() as c_int)
}

/// Sends log lines to cb, for all threads; NULL ends that. Without a function, VIRNETDEVTAP_DEBUG=1 in the environment
/// sends them to standard error.
///
/// A thread that is writing a line at this moment may still call the former function: keep its opaque alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapSetLogFunc(cb: virNetDevTapLogFunc, opaque: *mut c_void) {
    struct Opaque(*mut c_void);
    // SAFETY: the library only hands the pointer back; its owner is told that cb is called from any thread
    unsafe impl Send for Opaque {}
    // SAFETY: as above
    unsafe impl Sync for Opaque {}

    let opaque = Opaque(opaque);
    host::set_log_func(cb.map(|cb| -> Arc<host::LogFunc> {
        Arc::new(move |priority, text| {
            let Opaque(opaque) = &opaque;
            let priority = match priority {
                Priority::Debug => virNetDevTapLogPriority::VIR_NETDEV_TAP_LOG_DEBUG,
                Priority::Info => virNetDevTapLogPriority::VIR_NETDEV_TAP_LOG_INFO,
                Priority::Warn => virNetDevTapLogPriority::VIR_NETDEV_TAP_LOG_WARN,
                Priority::Error => virNetDevTapLogPriority::VIR_NETDEV_TAP_LOG_ERROR,
            };
            let Ok(text) = CString::new(text.replace('\0', " ")) else { return };
            // SAFETY: cb is a function of this type, which its owner has set for us to call; the string outlives the call
            unsafe { cb(priority, text.as_ptr(), *opaque) };
        })
    }));
}
