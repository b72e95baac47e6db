//! The libvirt that this process may have: its reporters, its log, its names. Found with dlsym(), never linked; in QEMU and
//! other children that merely inherited LD_PRELOAD there is none.
//!
//! The signatures are the same from libvirt 7.0 to 12.8 (src/util/virerror.h, virlog.h, virnetdev.h).

use crate::error::{Code, Error};
use crate::host::{Host, Priority};
use crate::kernel::IfName;
use libc::{c_char, c_int, c_long, c_uint, c_ulong, c_void, size_t};
use once_cell::race::OnceBox;
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

type ReportErrorHelper = unsafe extern "C" fn(c_int, c_int, *const c_char, *const c_char, size_t, *const c_char, ...);
type ReportSystemErrorFull = ReportErrorHelper;
type LogMessage =
    unsafe extern "C" fn(*mut LogSource, c_uint, *const c_char, c_int, *const c_char, *mut c_void, *const c_char, ...);
type GenerateName = unsafe extern "C" fn(*mut *mut c_char, c_uint) -> c_int;
type GetVersion = unsafe extern "C" fn(*mut c_ulong, *const c_char, *mut c_ulong) -> c_int;

/// `virLogSource`: libvirt keeps in it whether the source's lines are wanted.
#[repr(C)]
struct LogSource {
    name: *const c_char,
    priority: AtomicU32,
    serial: c_uint,
}

struct Libvirt {
    report_error: ReportErrorHelper,
    report_system_error: ReportSystemErrorFull,
    log_message: LogMessage,
    generate_name: GenerateName,
    #[cfg(feature = "preload")]
    version: c_ulong,
    log_source: *mut LogSource,
}

// SAFETY: functions of libvirt may be called from any thread, and virLogMessage() guards the source by a lock of its own
unsafe impl Send for Libvirt {}
// SAFETY: as above
unsafe impl Sync for Libvirt {}

/// The libvirt of this process, once it has one.
pub(super) fn libvirt() -> Option<&'static dyn Host> {
    static FOUND: OnceBox<Libvirt> = OnceBox::new();
    if let Some(found) = FOUND.get() {
        return Some(found);
    }
    let found = Libvirt::find()?;
    Some(FOUND.get_or_init(|| Box::new(found)))
}

/// A function of libvirt, whether it is in the global scope or was loaded by a plugin.
fn lookup(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is NUL-terminated
    let global = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !global.is_null() {
        return Some(global);
    }
    let path = loaded_libvirt()?;
    // SAFETY: the name is NUL-terminated, and nothing is loaded that is not there already
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if library.is_null() {
        return None;
    }
    // SAFETY: the handle is good, the name NUL-terminated
    let local = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!local.is_null()).then_some(local)
}

/// Under which name a libvirt has been loaded, if one has. Asks the dynamic linker's list, not the file system: a process
/// without libvirt asks for each line that it logs.
fn loaded_libvirt() -> Option<CString> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: size_t, found: *mut c_void) -> c_int {
        // SAFETY: the dynamic linker gives a pointer to one entry of its list
        let name = unsafe { (*info).dlpi_name };
        if name.is_null() {
            return 0;
        }
        // SAFETY: a name in the linker's list is NUL-terminated
        let name = unsafe { CStr::from_ptr(name) };
        if !name.to_bytes().ends_with(b"/libvirt.so.0") {
            return 0;
        }
        // SAFETY: `found` is what loaded_libvirt() has passed on
        unsafe { found.cast::<Option<CString>>().write(Some(name.to_owned())) };
        1
    }
    let mut found = None;
    // SAFETY: visit() has the signature that is asked for, and `found` outlives the call
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

impl Libvirt {
    fn find() -> Option<Self> {
        let (report_error, report_system_error) = (lookup(c"virReportErrorHelper")?, lookup(c"virReportSystemErrorFull")?);
        let (log_message, generate_name) = (lookup(c"virLogMessage")?, lookup(c"virNetDevGenerateName")?);
        let get_version = lookup(c"virGetVersion")?;
        // SAFETY: this is the signature that libvirt's public header gives the symbol
        let get_version: GetVersion = unsafe { std::mem::transmute(get_version) };
        let mut version = 0;
        // virGetVersion() sees to it that libvirt is initialised: before that, nothing may be reported.
        // SAFETY: it writes one number, and takes NULL for what is not asked
        if unsafe { get_version(&raw mut version, ptr::null(), ptr::null_mut()) } != 0 {
            return None;
        }
        let priority = AtomicU32::new(Priority::Debug as u32); // until libvirt says better
        let log_source = Box::new(LogSource { name: c"util.netdevtap".as_ptr(), priority, serial: 0 });
        Some(Self {
            // SAFETY: this is the symbol's signature in all releases since 7.0
            report_error: unsafe { std::mem::transmute::<*mut c_void, ReportErrorHelper>(report_error) },
            // SAFETY: as above
            report_system_error: unsafe { std::mem::transmute::<*mut c_void, ReportSystemErrorFull>(report_system_error) },
            // SAFETY: as above
            log_message: unsafe { std::mem::transmute::<*mut c_void, LogMessage>(log_message) },
            // SAFETY: as above
            generate_name: unsafe { std::mem::transmute::<*mut c_void, GenerateName>(generate_name) },
            #[cfg(feature = "preload")]
            version,
            log_source: Box::into_raw(log_source), // for good, like libvirt's own static ones
        })
    }
}

const FILE: &CStr = c"virnetdevtap";
const DOMAIN: c_int = 0; // VIR_FROM_NONE, as in libvirt's virnetdevtap.c

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

impl Host for Libvirt {
    fn report(&self, error: &Error, function: &str) {
        let (function, text) = (c_text(function), c_text(error.text()));
        let (report, number) = match error.code() {
            Code::System => (self.report_system_error, error.errno() as c_int),
            code => (self.report_error, code as c_int),
        };
        // SAFETY: the format takes one string; all strings outlive the call
        unsafe { report(DOMAIN, number, FILE.as_ptr(), function.as_ptr(), 0, c"%s".as_ptr(), text.as_ptr()) };
    }

    fn log(&self, priority: Priority, text: &str) {
        let (source, function) = (self.log_source, c"virnetdevtap".as_ptr());
        let len = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
        // SAFETY: the source lives for good; the format takes the length of a string and its bytes, which outlive the call
        unsafe {
            (self.log_message)(
                source,
                priority as c_uint,
                FILE.as_ptr(),
                0,
                function,
                ptr::null_mut(),
                c"%.*s".as_ptr(),
                len,
                text.as_ptr(),
            );
        };
    }

    fn wants(&self, priority: Priority) -> bool {
        const NOBODYS: c_uint = 0; // below any priority: virLogMessage() brings the source up to date, and writes nothing
        // SAFETY: the source lives for good, and libvirt writes this word at once
        let wanted = unsafe { &(*self.log_source).priority };
        let wants = || priority as u32 >= wanted.load(Ordering::Relaxed);
        if wants() {
            return true;
        }
        let (source, function) = (self.log_source, c"virnetdevtap".as_ptr());
        // SAFETY: the source lives for good; the format takes nothing
        unsafe { (self.log_message)(source, NOBODYS, FILE.as_ptr(), 0, function, ptr::null_mut(), c"".as_ptr()) };
        wants()
    }

    fn generate_name(&self, prefix: &[u8], suffix: &[u8]) -> Option<IfName> {
        const VNET: c_uint = 0; // VIR_NET_DEV_GEN_NAME_VNET
        const ROOM: usize = libc::IFNAMSIZ + "%d".len(); // and the NUL in place of a digit
        let mut name = ptr::null_mut(); // which asks for libvirt's default
        if (prefix, suffix) != (b"vnet", b"") {
            let mut template = [0_u8; ROOM];
            let text = prefix.iter().chain(b"%d").chain(suffix);
            template.iter_mut().zip(text).for_each(|(target, byte)| *target = *byte);
            // SAFETY: the template ends with a NUL
            name = unsafe { libc::strdup(template.as_ptr().cast()) };
            if name.is_null() {
                return None;
            }
        }
        // SAFETY: `name` is NULL or from malloc(), which libvirt free()s when it puts its own in place
        let rc = unsafe { (self.generate_name)(&raw mut name, VNET) };
        if name.is_null() {
            return None;
        }
        // SAFETY: not NULL, so NUL-terminated
        let generated = IfName::new(unsafe { CStr::from_ptr(name) }.to_bytes()).ok();
        // SAFETY: the string is ours, from malloc()
        unsafe { libc::free(name.cast()) };
        generated.filter(|_| rc == 0)
    }

    #[cfg(feature = "preload")]
    fn version(&self) -> u64 {
        self.version
    }
}

const _: () = assert!(size_of::<LogSource>() == 16 || size_of::<c_long>() != 8);
