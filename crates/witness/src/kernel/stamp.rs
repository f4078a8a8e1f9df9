//! When and where an event was traced.

use std::time::Duration;

use crate::evidence::Process;
use crate::process::process_of_thread;

/// When and where an event was traced: what the kernel prints before its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When, on `CLOCK_MONOTONIC`.
    pub time: Duration,
    /// Name of the thread that ran; `None` where the kernel has forgotten it.
    pub comm: Option<String>,
    /// The thread that ran.
    pub pid: u32,
    /// The process of that thread, if the kernel tells it.
    pub process: Option<u32>,
    /// The processor it ran on.
    pub cpu: u32,
    /// The thread only happened to run there: the event is an interrupt's, a timer or an arriving segment.
    pub in_interrupt: bool,
}

impl Stamp {
    /// Reads `  python3-7006476  (   7006476) [001] ..s2.  4743.111379`, from its right end: the name may hold
    /// anything.
    pub(crate) fn parse(head: &str) -> Result<Self, &'static str> {
        let (head, time) = last_word(head).ok_or("no time")?;
        let time = seconds(time).ok_or("no time")?;
        let (head, flags) = last_word(head).ok_or("no flags")?;
        let (head, cpu) = last_word(head).ok_or("no cpu")?;
        let cpu = cpu
            .strip_prefix('[')
            .and_then(|cpu| cpu.strip_suffix(']')?.parse().ok())
            .ok_or("no cpu")?;
        let (head, process) = process(head);
        let (comm, pid) = head.trim().rsplit_once('-').ok_or("no pid")?;
        Ok(Self {
            time,
            comm: (comm != "<...>").then(|| comm.to_owned()),
            pid: pid.parse().map_err(|_| "no pid")?,
            process,
            cpu,
            // The third flag is `s` in a softirq and `h` in an interrupt.
            in_interrupt: flags.as_bytes().get(2).is_none_or(|&flag| flag != b'.'),
        })
    }

    /// The process that ran.
    ///
    /// The kernel learns a thread's name and process when it stops running, often after we have read the line:
    /// `/proc` says it then, if the thread still lives and is older than the event.
    pub fn process(&self) -> Process {
        process_of_thread(self.pid, self.process, self.comm.clone(), self.time)
    }
}

fn last_word(text: &str) -> Option<(&str, &str)> {
    text.trim_end().rsplit_once(' ')
}

/// Takes off `(   7006476)` or `(-------)`, which the option `record-tgid` adds.
fn process(head: &str) -> (&str, Option<u32>) {
    let head = head.trim_end();
    let Some((before, number)) = head
        .strip_suffix(')')
        .and_then(|head| head.rsplit_once('('))
    else {
        return (head, None);
    };
    let number = number.trim();
    if number.starts_with('-') {
        return (before, None);
    }
    match number.parse() {
        Ok(process) => (before, Some(process)),
        Err(_) => (head, None),
    }
}

/// Seconds with six digits of a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.')?;
    let micros: u32 = (fraction.len() == 6).then_some(fraction)?.parse().ok()?;
    let whole = Duration::from_secs(whole.parse().ok()?);
    whole.checked_add(Duration::from_micros(u64::from(micros)))
}
