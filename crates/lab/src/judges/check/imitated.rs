//! What known clients do on the wire, for `--as`: how they write, what they say about the connection, and what they do when
//! a write fails. docs/check.md names where each row comes from.

use std::time::Duration;

use super::plan::CheckPlan;
use super::script::{Step, content};
use super::trial::{ConnectionUse, Model};

/// A client that a check plays in place of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImitatedClient {
    /// Its name, as `--as` takes it.
    pub name: &'static str,
    /// It asks with HTTP/1.0.
    pub(super) http_1_0: bool,
    /// What its requests say about the connection.
    pub(super) connection: ConnectionUse,
    /// Which bytes of a body go out in one write with the head.
    with_head: WithHead,
    /// Pause between a head that goes out alone and the body.
    gap: Duration,
    /// The longest write of a body, in bytes.
    pub(super) max_write: usize,
    /// It gives up when a write fails; otherwise it reads on.
    pub(super) stops: bool,
    /// A body of more than so many bytes is announced with `Expect: 100-continue`.
    expects_above: Option<u64>,
}

/// Which bytes of a body go out in one write with the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithHead {
    /// None.
    Nothing,
    /// Up to so many bytes, of every body.
    Beginning(u64),
    /// All of a body of up to so many bytes, and none of a longer one.
    WholeUpTo(u64),
}

const KIB: u64 = 1024;

/// A proxy gets the body from its own client a little after the head.
const BODY_COMES_LATER: Duration = Duration::from_millis(1);

/// How long to wait for `100 Continue`. curl waits 1 s; a server that sends it does so at once.
const CONTINUE_WAIT: Duration = Duration::from_millis(500);

/// A client that is like most: HTTP/1.1, connections kept, the head alone, 16 KiB a write, and no reading after a failed
/// write.
const USUAL: ImitatedClient = ImitatedClient {
    name: "",
    http_1_0: false,
    connection: ConnectionUse::Kept,
    with_head: WithHead::Nothing,
    gap: BODY_COMES_LATER,
    max_write: 16 * 1024,
    stops: true,
    expects_above: None,
};

/// The clients.
pub(super) static CLIENTS: [ImitatedClient; 10] = [
    ImitatedClient {
        name: "nginx",
        http_1_0: true,
        connection: ConnectionUse::Close,
        with_head: WithHead::Beginning(8 * KIB),
        max_write: 8 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "nginx-unbuffered",
        connection: ConnectionUse::Close,
        max_write: 8 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "haproxy",
        with_head: WithHead::WholeUpTo(15 * KIB),
        max_write: 16_320,
        ..USUAL
    },
    ImitatedClient {
        name: "envoy",
        ..USUAL
    },
    ImitatedClient {
        name: "traefik",
        max_write: 32 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "apache",
        with_head: WithHead::Beginning(16 * KIB),
        ..USUAL
    },
    ImitatedClient {
        name: "caddy",
        max_write: 32 * 1024,
        ..USUAL
    },
    ImitatedClient {
        name: "alb",
        ..USUAL
    },
    ImitatedClient {
        name: "curl",
        with_head: WithHead::WholeUpTo(64 * KIB),
        gap: Duration::ZERO,
        max_write: 64 * 1024,
        expects_above: Some(KIB * KIB),
        ..USUAL
    },
    ImitatedClient {
        name: "browser",
        with_head: WithHead::WholeUpTo(1000),
        gap: Duration::ZERO,
        stops: false,
        ..USUAL
    },
];

impl ImitatedClient {
    /// The scenarios that such a client plays.
    pub(super) const fn scenarios(&self) -> &'static [&'static str] {
        match self.connection {
            ConnectionUse::Kept => &["body-with-head", "body-large", "keep-alive", "early-answer"],
            ConnectionUse::Close => &["body-with-head", "body-large", "early-answer"],
        }
    }

    /// Whether it is played by this model: one that reads at once, and one that reads late.
    pub(super) fn is_played_by(&self, model: Model) -> bool {
        match model {
            Model::Ordinary => true,
            Model::ReadsOn => !self.stops,
            Model::StopsAtWriteError => self.stops,
        }
    }

    /// The steps as this client writes: a head, its body and the pauses between become the client's own writes.
    pub(super) fn writes(&self, plan: &CheckPlan, steps: Vec<Step>) -> Vec<Step> {
        let mut written = Vec::new();
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let Step::Send(mut head) = step else {
                written.push(step);
                continue;
            };
            let end = head.windows(4).position(|four| four == b"\r\n\r\n");
            let end = end.map_or(head.len(), |at| at + 4);
            let mut body = (head.len() - end) as u64;
            head.truncate(end);
            while let Some(Step::Pause(_) | Step::Fill(_)) = steps.peek() {
                if let Some(Step::Fill(bytes)) = steps.next() {
                    body += bytes;
                }
            }
            self.write(plan, head, body, &mut written);
        }
        written
    }

    fn write(&self, plan: &CheckPlan, mut head: Vec<u8>, body: u64, written: &mut Vec<Step>) {
        let expects = self.expects_above.is_some_and(|most| body > most);
        let joined = match self.with_head {
            _ if expects => 0,
            WithHead::Nothing => 0,
            WithHead::Beginning(most) => body.min(most),
            WithHead::WholeUpTo(most) if body <= most => body,
            WithHead::WholeUpTo(_) => 0,
        };
        if expects {
            head.truncate(head.len() - 2);
            head.extend_from_slice(b"Expect: 100-continue\r\n\r\n");
        }
        head.extend(content(plan, joined));
        written.push(Step::Send(head));
        if expects {
            written.push(Step::AwaitContinue(CONTINUE_WAIT));
        } else if joined == 0 && body > 0 && !self.gap.is_zero() {
            written.push(Step::Pause(self.gap));
        }
        if body > joined && plan.body.is_empty() {
            written.push(Step::Fill(body - joined));
        } else if body > joined {
            let rest = &content(plan, body)[joined as usize..];
            let pieces = rest.chunks(self.max_write);
            written.extend(pieces.map(|piece| Step::Send(piece.to_vec())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::target::Target;

    /// How each client writes requests with these bodies: head and body, pause, rest.
    fn written(client: &'static ImitatedClient, body: u64) -> String {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let plan = CheckPlan::new(target);
        let head = b"POST / HTTP/1.1\r\n\r\n".to_vec();
        let head_bytes = head.len();
        let steps = vec![
            Step::Send(head),
            Step::Pause(Duration::from_secs(9)),
            Step::Fill(body),
        ];
        let steps = client
            .writes(&plan, steps)
            .into_iter()
            .map(|step| match step {
                Step::Send(bytes) if bytes.ends_with(b"Expect: 100-continue\r\n\r\n") => {
                    "expect".to_owned()
                }
                Step::Send(bytes) => format!("head+{}", bytes.len() - head_bytes),
                Step::Fill(bytes) => bytes.to_string(),
                step => format!("{step:?}"),
            });
        steps.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_client_writes_small_and_large_bodies_in_its_own_way() {
        let rows: Vec<_> = CLIENTS
            .iter()
            .map(|client| {
                let sizes = [22, 20_000, 2_000_000].map(|bytes| written(client, bytes));
                format!("{}: {}", client.name, sizes.join(" | "))
            })
            .collect();
        assert_eq!(
            rows,
            [
                "nginx: head+22 | head+8192, 11808 | head+8192, 1991808",
                "nginx-unbuffered: head+0, Pause(1ms), 22 | head+0, Pause(1ms), 20000 | head+0, Pause(1ms), 2000000",
                "haproxy: head+22 | head+0, Pause(1ms), 20000 | head+0, Pause(1ms), 2000000",
                "envoy: head+0, Pause(1ms), 22 | head+0, Pause(1ms), 20000 | head+0, Pause(1ms), 2000000",
                "traefik: head+0, Pause(1ms), 22 | head+0, Pause(1ms), 20000 | head+0, Pause(1ms), 2000000",
                "apache: head+22 | head+16384, 3616 | head+16384, 1983616",
                "caddy: head+0, Pause(1ms), 22 | head+0, Pause(1ms), 20000 | head+0, Pause(1ms), 2000000",
                "alb: head+0, Pause(1ms), 22 | head+0, Pause(1ms), 20000 | head+0, Pause(1ms), 2000000",
                "curl: head+22 | head+20000 | expect, AwaitContinue(500ms), 2000000",
                "browser: head+22 | head+0, 20000 | head+0, 2000000",
            ]
        );
    }
}
