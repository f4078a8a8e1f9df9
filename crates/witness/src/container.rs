//! Finds the container and the pod of a process by the path of its cgroup.

use std::fmt;
use std::fs;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::evidence::Process;
use crate::process::{NUMBERS_ARE_OURS, had};

/// Hexadecimal digits of a container's number, and how many of them `docker ps` and `crictl ps` show.
const DIGITS: usize = 64;
const SHOWN_DIGITS: usize = 12;

/// The container of a process, and its pod in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Container {
    /// The first 12 digits of its number, as `docker ps` shows them; null if only the pod is known.
    pub id: Option<String>,
    /// The UID of its pod (`metadata.uid`); null outside of Kubernetes.
    pub pod: Option<String>,
}

impl Container {
    /// The container of a process that the kernel's trace named at a time on `CLOCK_MONOTONIC`; `None` if the process is
    /// in none, or has ended.
    pub fn of_traced(process: &Process, at: Duration) -> Option<Self> {
        let is_it = *NUMBERS_ARE_OURS && had(process.pid, at).is_some();
        is_it.then(|| Self::of_process(process)).flatten()
    }

    /// The container of a process that was found in `/proc`; `None` if the process is in none, or has ended.
    pub fn of_process(process: &Process) -> Option<Self> {
        Self::in_cgroups(&fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok()?)
    }

    /// The container in the lines of `/proc/PID/cgroup` (cgroups(7)): `0::/system.slice/docker-3f2a….scope`. cgroup v1
    /// has a line for each controller.
    fn in_cgroups(lines: &str) -> Option<Self> {
        let paths = || lines.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let found = Self {
            id: paths().find_map(id),
            pod: paths().find_map(pod),
        };
        (found.id.is_some() || found.pod.is_some()).then_some(found)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.id, &self.pod) {
            (Some(id), Some(pod)) => write!(f, "container {id} of pod {pod}"),
            (Some(id), None) => write!(f, "container {id}"),
            (None, Some(pod)) => write!(f, "pod {pod}"),
            (None, None) => Ok(()),
        }
    }
}

/// `docker/<number>`, `docker-<number>.scope`, `cri-containerd-<number>.scope`, `libpod-<number>.scope` and the like. A
/// container in another one (kind) has the inner one last.
fn id(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let number = part.rsplit(['-', ':']).next()?;
        let is_number = number.len() == DIGITS && number.bytes().all(|it| it.is_ascii_hexdigit());
        is_number.then(|| number[..SHOWN_DIGITS].to_owned())
    })
}

/// `kubepods/burstable/pod<uid>`, or `kubepods-burstable-pod<uid>.slice` with `_` in place of `-`.
fn pod(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let (before, uid) = part.rsplit_once("pod")?;
        let uid = uid.replace('_', "-");
        let is_uid = uid.len() >= 32 && uid.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
        // `libpod-<number>` has no UID.
        let is_pod = before.is_empty() || before.ends_with('-');
        (is_pod && is_uid && !uid.starts_with('-')).then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "3f2a1b0c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8";
    const UID: &str = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";

    #[test]
    fn the_path_of_a_cgroup_tells_container_and_pod() {
        let uid = UID.replace('-', "_");
        let container = "container 3f2a1b0c4d5e";
        let both = format!("{container} of pod {UID}");
        for (lines, told) in [
            (format!("0::/system.slice/docker-{NUMBER}.scope"), container),
            (
                format!("9:name=systemd:/docker/{NUMBER}\n8:pids:/docker/{NUMBER}\n0::/"),
                container,
            ),
            (
                format!("0::/machine.slice/libpod-{NUMBER}.scope/container"),
                container,
            ),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/\
                     cri-containerd-{NUMBER}.scope"
                ),
                &both,
            ),
            (
                format!("4:memory:/kubepods/besteffort/pod{UID}/{NUMBER}"),
                &both,
            ),
            (
                format!("0::/kubelet/kubepods/pod{UID}/cri-containerd:{NUMBER}"),
                &both,
            ),
            (
                format!("0::/kubepods.slice/kubepods-pod{uid}.slice/crio-{NUMBER}.scope"),
                &both,
            ),
            (
                format!("0::/kubepods/pod{UID}/worker"),
                &format!("pod {UID}"),
            ),
        ] {
            let found = Container::in_cgroups(&lines).map(|it| it.to_string());
            assert_eq!(found.as_deref(), Some(told), "{lines}");
        }
    }

    #[test]
    fn a_process_outside_of_containers_has_none() {
        for lines in [
            "",
            "0::/",
            "0::/user.slice/user-1000.slice/session-2.scope",
            "0::/system.slice/nginx.service",
            "0::/podcast/tripod-maker.slice",
            "3:cpuset:/docker/3f2a1b0c4d5e",
            "no cgroup",
        ] {
            assert_eq!(Container::in_cgroups(lines), None, "{lines}");
        }
    }
}
