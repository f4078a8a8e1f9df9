use std::io;

use rustix::io::Errno;

use super::probe::CannotCheck;
use super::target::Address;

/// Errors of `socket(2)` and `connect(2)` that lie with us, and what to do.
const OURS: [(Errno, &str); 5] = [
    (
        Errno::MFILE,
        "this process may have no more open files: raise the limit with ulimit -n",
    ),
    (
        Errno::NFILE,
        "this machine may have no more open files: raise fs.file-max",
    ),
    (
        Errno::ADDRNOTAVAIL,
        "this machine has no free port left for a connection: wait a minute, choose fewer --trials, or widen \
         net.ipv4.ip_local_port_range",
    ),
    (
        Errno::NOBUFS,
        "this machine has no memory left for a connection",
    ),
    (
        Errno::NOMEM,
        "this machine has no memory left for a connection",
    ),
];

/// What a connection that did not come about says: it is no answer, and so none that was lost. `made` is how many
/// others came before it, if the server was seen to be there.
pub(super) fn unconnected(address: &Address, source: io::Error, made: Option<u64>) -> CannotCheck {
    let is_it = |errno: &Errno| source.raw_os_error() == Some(errno.raw_os_error());
    if let Some((_, what)) = OURS.iter().find(|(errno, _)| is_it(errno)) {
        return CannotCheck::OwnLimit { what, source };
    }
    let address = address.clone();
    match made {
        None => CannotCheck::Connect { address, source },
        Some(made) => CannotCheck::Gone {
            address,
            made,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_limits_are_not_the_server_s() {
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        for (errno, part) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::ADDRNOTAVAIL, "ip_local_port_range"),
            (Errno::NOBUFS, "no memory"),
            (Errno::NOMEM, "no memory"),
            (Errno::CONNREFUSED, "after 7 trials"),
        ] {
            let text = unconnected(&address, errno.into(), Some(7)).to_string();
            assert!(text.contains(part), "{text}");
        }
    }
}
