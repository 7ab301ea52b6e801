//! Tap devices (`Documentation/networking/tuntap.rst` of the kernel's).

use std::io;
use std::os::fd::AsRawFd;

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;

/// Makes a tap device in the current network namespace, which stays without
/// anybody at its other end.
///
/// # Errors
///
/// When `/dev/net/tun` cannot be opened, and those of the ioctls.
pub fn make_tap(name: &str) -> io::Result<()> {
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|e| io::Error::new(e.kind(), format!("/dev/net/tun: {e}")))?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq.
    if unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let on: libc::c_ulong = 1;
    // SAFETY: TUNSETPERSIST takes a number in the place of a pointer.
    match unsafe { libc::ioctl(device.as_raw_fd(), TUNSETPERSIST, on) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
