//! Error numbers as people know them: `ECONNRESET`, `Connection reset by peer`.

use nix::errno::Errno;

/// The name, such as `ECONNRESET`; `None` if Linux has no error of this number.
pub(crate) fn name(errno: i32) -> Option<String> {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => None,
        known => Some(format!("{known:?}")),
    }
}

/// The kernel's text, as strace and nginx show it.
pub(crate) fn text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next();
    text.unwrap_or_default().to_owned()
}

/// Number and name: `104 ECONNRESET`.
pub(crate) fn numbered(errno: i32) -> String {
    match name(errno) {
        Some(name) => format!("{errno} {name}"),
        None => format!("errno {errno}"),
    }
}
