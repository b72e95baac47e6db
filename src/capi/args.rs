//! Arguments from C, checked.

use crate::error::{Error, Result};
use crate::kernel::IfName;
use crate::kernel::tun::MAX_QUEUES;
use crate::tap;
use libc::{c_char, c_int};
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};

/// A string, or None for NULL.
///
/// # Safety
/// `string` is NULL or NUL-terminated, and stays as it is for `'a`.
pub(super) unsafe fn string<'a>(string: *const c_char) -> Option<&'a CStr> {
    if string.is_null() {
        return None;
    }
    // SAFETY: not NULL; the caller promises the rest
    Some(unsafe { CStr::from_ptr(string) })
}

/// The name of an interface; NULL is an error.
///
/// # Safety
/// As for [`string`].
pub(super) unsafe fn interface_name(name: *const c_char) -> Result<IfName> {
    // SAFETY: passed on
    let name = unsafe { string(name) }.ok_or_else(|| Error::argument("Interface name not provided"))?;
    tap::interface_name(name.to_bytes())
}

/// Refuses NULL where the caller wants something written.
pub(super) fn out<T>(pointer: *mut T, what: &str) -> Result<*mut T> {
    if pointer.is_null() { Err(Error::argument(format!("{what} must not be NULL"))) } else { Ok(pointer) }
}

/// A file of the caller's.
///
/// # Safety
/// If `fd` is open, it stays open for `'a`.
pub(super) unsafe fn file<'a>(fd: c_int) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Error::system(Errno::EBADF, format!("Invalid file descriptor {fd}")));
    }
    // SAFETY: not negative; a number that is not open makes the calls on it fail with EBADF
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The caller's array for the files of a tap.
pub(super) struct FdSlots<'a>(&'a mut [c_int]);

impl FdSlots<'_> {
    /// Sets all slots to -1, which is what the caller finds there if the call fails. More slots than a tap can have
    /// queues are not believed in, nor touched.
    ///
    /// # Safety
    /// `first` is NULL or points to `len` ints that live as long as the result and that nobody else uses meanwhile.
    pub(super) unsafe fn new(first: *mut c_int, len: usize) -> Self {
        if first.is_null() || len > MAX_QUEUES {
            return Self(&mut []);
        }
        // SAFETY: not NULL, and the caller promises the rest
        let slots = unsafe { std::slice::from_raw_parts_mut(first, len) };
        slots.fill(-1);
        Self(slots)
    }

    /// Hands the files over to the caller.
    pub(super) fn fill(self, files: Vec<OwnedFd>) {
        for (slot, file) in self.0.iter_mut().zip(files) {
            *slot = file.into_raw_fd();
        }
    }
}

/// Room for an interface name from malloc(), got before anything is changed so that handing the name over cannot fail.
pub(super) struct NameBuffer(*mut [u8; libc::IFNAMSIZ]);

impl NameBuffer {
    pub(super) fn new() -> Result<Self> {
        // SAFETY: malloc may be called with any size
        let buffer = unsafe { libc::malloc(libc::IFNAMSIZ) };
        if buffer.is_null() {
            return Err(Error::system(Errno::ENOMEM, "Unable to allocate an interface name"));
        }
        Ok(Self(buffer.cast()))
    }

    /// The caller's to free() from now on.
    pub(super) fn into_raw(self, name: &IfName) -> *mut c_char {
        let buffer = self.0;
        std::mem::forget(self);
        // SAFETY: the buffer has room for an interface name, which ends with a NUL, and nobody else has it
        unsafe { buffer.write(*name.padded()) };
        buffer.cast()
    }
}

impl Drop for NameBuffer {
    fn drop(&mut self) {
        // SAFETY: it is from malloc() and nobody else has it
        unsafe { libc::free(self.0.cast()) };
    }
}

/// A copy of `items` from malloc(), for the caller to free(); NULL if there are none.
pub(super) fn malloc_array<T: Copy>(items: &[T]) -> std::result::Result<*mut T, Errno> {
    if items.is_empty() {
        return Ok(std::ptr::null_mut());
    }
    // SAFETY: calloc may be called with any sizes
    let array: *mut T = unsafe { libc::calloc(items.len(), size_of::<T>()) }.cast();
    if array.is_null() {
        return Err(Errno::ENOMEM);
    }
    // SAFETY: both have room for that many elements, and the new one overlaps nothing
    unsafe { array.copy_from_nonoverlapping(items.as_ptr(), items.len()) };
    Ok(array)
}

/// Numbers of the caller's; NULL is none at all.
///
/// # Safety
/// `first` is NULL or points to `len` ints that stay as they are for `'a`.
pub(super) unsafe fn numbers<'a>(first: *const c_int, len: usize) -> Result<&'a [c_int]> {
    if first.is_null() || len == 0 {
        return Ok(&[]);
    }
    if len > MAX_QUEUES {
        return Err(Error::argument(format!("a tap device has at most {MAX_QUEUES} queues, not {len}")));
    }
    // SAFETY: not NULL, and the caller promises the rest
    Ok(unsafe { std::slice::from_raw_parts(first, len) })
}

/// An array of the caller's strings, as pointers; NULL with a length of 0 is none at all.
///
/// # Safety
/// `first` is NULL or points to `len` pointers that stay as they are for `'a`.
pub(super) unsafe fn strings<'a>(first: *const *const c_char, len: usize) -> Result<&'a [*const c_char]> {
    if len == 0 {
        return Ok(&[]);
    }
    if first.is_null() || len.checked_mul(size_of::<*const c_char>()).is_none_or(|size| isize::try_from(size).is_err()) {
        return Err(Error::argument(format!("There are no {len} interface names")));
    }
    memory_for(len)?;
    // SAFETY: not NULL, no larger than an array can be, and the caller promises the rest
    Ok(unsafe { std::slice::from_raw_parts(first, len) })
}

/// Writes an element of an array of the caller's, if there is one.
///
/// # Safety
/// `first` is NULL or points to more than `at` elements that nobody else uses meanwhile.
pub(super) unsafe fn fill<T>(first: *mut T, at: usize, value: T) {
    if !first.is_null() {
        // SAFETY: inside the array, as the caller promises
        let slot = unsafe { first.add(at) };
        // SAFETY: as above
        unsafe { slot.write(value) };
    }
}

/// Refuses a list that there is no memory for. The caller says how long it is, and what is allocated for each of its names
/// later on could only end the process: so much is asked for, and given back, before anything is done.
fn memory_for(names: usize) -> Result<()> {
    const EACH: usize = 512;
    let mut room = Vec::<u8>::new();
    let reserved = room.try_reserve_exact(names.saturating_mul(EACH));
    std::hint::black_box(&room);
    reserved.map_err(|_| Error::system(Errno::ENOMEM, format!("Unable to work on {names} interface names")))
}
