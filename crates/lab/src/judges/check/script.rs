//! What a client does on one connection, step by step, and the heads of its requests.

use std::time::Duration;

use super::imitated::ImitatedClient;
use super::plan::CheckPlan;
use super::trial::ConnectionUse;

/// What a client does on one connection: the scenarios write it, the client plays it.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// Responses that must come, unless the server says with one that it is the last.
    pub(super) responses: usize,
    /// The request has the plan's own path, so that its response can be compared with the answer to the plain request.
    pub(super) same_path: bool,
    /// A reset may come a second after the response and its FIN: some servers wait before they close for good.
    pub(super) watches_long: bool,
    /// The client whose writes these are.
    pub(super) imitated: Option<&'static ImitatedClient>,
    /// The method of the requests is HEAD: responses have no body.
    pub(super) head_only: bool,
}

/// One step. Nothing is read before the last step, except where a step waits for a response, and by the ordinary client.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Writes these bytes.
    Send(Vec<u8>),
    /// Writes so many bytes of `x`.
    Fill(u64),
    /// Does nothing for a time.
    Pause(Duration),
    /// Ends the client's side (a FIN) and goes on receiving.
    HalfClose,
    /// Waits so long at most for `100 Continue` or a final response; after a final one nothing is sent any more
    /// (RFC 9110 §10.1.1).
    AwaitContinue(Duration),
    /// Waits for the response to the request; if the server says that it closes, the other steps are left out.
    AwaitResponse,
}

impl Script {
    /// A script that waits for one response to the plan's request. If the plan has a body, its bytes are sent first where
    /// a step fills.
    pub(super) fn new(plan: &CheckPlan, mut steps: Vec<Step>) -> Self {
        let mut body = plan.body.as_slice();
        if let Some(client) = plan.imitated {
            steps = written(client, plan, steps);
        } else if !body.is_empty() {
            for step in &mut steps {
                if let Step::Fill(bytes) = *step {
                    *step = Step::Send(filled(&mut body, bytes));
                }
            }
        }
        Self {
            steps,
            responses: 1,
            same_path: true,
            watches_long: false,
            imitated: plan.imitated,
            head_only: plan.method == "HEAD",
        }
    }

    /// Whether the second request waits for the response to the first.
    pub(super) fn waits(&self) -> bool {
        let waits = |step: &Step| matches!(step, Step::AwaitResponse);
        self.steps.iter().any(waits)
    }

    /// How long it pauses.
    pub(super) fn pauses(&self) -> Duration {
        let pause = |step: &Step| match step {
            Step::Pause(time) | Step::AwaitContinue(time) => *time,
            _ => Duration::ZERO,
        };
        self.steps.iter().map(pause).sum()
    }
}

/// The first bytes of a body.
pub(super) fn content(plan: &CheckPlan, bytes: u64) -> Vec<u8> {
    match plan.body.as_slice() {
        [] => vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX)],
        mut body => filled(&mut body, bytes),
    }
}

/// The next bytes of a body, and blanks behind its end: JSON and most texts may end with them.
fn filled(body: &mut &[u8], bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let (now, rest) = body.split_at(bytes.min(body.len()));
    *body = rest;
    let mut filled = now.to_vec();
    filled.resize(bytes, b' ');
    filled
}

/// How long to wait for `100 Continue`. curl waits 1 s; a server that sends it does so at once.
const CONTINUE_WAIT: Duration = Duration::from_millis(500);

/// The steps as a known client writes: a head, its body and the pauses between become the client's own writes.
fn written(client: &ImitatedClient, plan: &CheckPlan, steps: Vec<Step>) -> Vec<Step> {
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
        write(client, plan, head, body, &mut written);
    }
    written
}

fn write(
    client: &ImitatedClient,
    plan: &CheckPlan,
    mut head: Vec<u8>,
    body: u64,
    written: &mut Vec<Step>,
) {
    let (joined, expects) = (client.bytes_with_head(body), client.expects_continue(body));
    if expects {
        head.truncate(head.len() - 2);
        head.extend_from_slice(b"Expect: 100-continue\r\n\r\n");
    }
    head.extend(content(plan, joined));
    written.push(Step::Send(head));
    if expects {
        written.push(Step::AwaitContinue(CONTINUE_WAIT));
    } else if joined == 0 && body > 0 && !client.gap.is_zero() {
        written.push(Step::Pause(client.gap));
    }
    if body > joined && plan.body.is_empty() {
        written.push(Step::Fill(body - joined));
    } else if body > joined {
        let rest = &content(plan, body)[joined as usize..];
        let pieces = rest.chunks(client.max_write);
        written.extend(pieces.map(|piece| Step::Send(piece.to_vec())));
    }
}

/// A request's head.
#[derive(Debug, Clone)]
pub(super) struct RequestHead<'a> {
    plan: &'a CheckPlan,
    method: &'a str,
    path: &'a str,
    version: &'static str,
    connection: Option<&'static str>,
    fields: Vec<(&'static str, String)>,
}

impl<'a> RequestHead<'a> {
    /// The plan's request; it asks the server to close the connection, as nginx asks its upstreams.
    pub(super) fn new(plan: &'a CheckPlan) -> Self {
        let head = Self {
            plan,
            method: &plan.method,
            path: &plan.target.path,
            version: "HTTP/1.1",
            connection: Some("close"),
            fields: Vec::new(),
        };
        match plan.imitated {
            Some(client) => Self {
                version: if client.http_1_0 {
                    "HTTP/1.0"
                } else {
                    "HTTP/1.1"
                },
                connection: (client.connection == ConnectionUse::Close).then_some("close"),
                ..head
            },
            None if plan.http_1_0 => head.version_1_0(),
            None => head,
        }
    }

    pub(super) fn method(self, method: &'a str) -> Self {
        Self { method, ..self }
    }

    pub(super) fn path(self, path: &'a str) -> Self {
        Self { path, ..self }
    }

    pub(super) fn version_1_0(self) -> Self {
        Self {
            version: "HTTP/1.0",
            connection: None,
            ..self
        }
    }

    /// Without `Connection: close`: the server may keep the connection.
    pub(super) fn kept(self) -> Self {
        Self {
            connection: None,
            ..self
        }
    }

    pub(super) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn length(self, bytes: u64) -> Self {
        self.field("Content-Length", bytes.to_string())
    }

    pub(super) fn chunked(self) -> Self {
        self.field("Transfer-Encoding", "chunked")
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { plan, .. } = self;
        let mut head = format!("{} {} {}\r\n", self.method, self.path, self.version);
        let mut add = |name: &str, value: &str| {
            head += &format!("{name}: {value}\r\n");
        };
        let given = |name: &str| {
            plan.headers
                .iter()
                .any(|(given, _)| given.eq_ignore_ascii_case(name))
        };
        for (name, value) in [("Host", plan.target.host.as_str()), ("User-Agent", AGENT)] {
            if !given(name) {
                add(name, value);
            }
        }
        for (name, value) in &plan.headers {
            add(name, value);
        }
        for (name, value) in &self.fields {
            add(name, value);
        }
        if let Some(option) = self.connection {
            add("Connection", option);
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// A step that sends it with the plan's body, or with none if the plan has none.
    pub(super) fn send_plain(self) -> Step {
        let body = &self.plan.body;
        let mut request = self.length(body.len() as u64).bytes();
        request.extend(body);
        Step::Send(request)
    }

    /// A step that sends it.
    pub(super) fn send(&self) -> Step {
        Step::Send(self.bytes())
    }
}

const AGENT: &str = concat!("rstlab-check/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::super::imitated::CLIENTS;
    use super::*;
    use crate::shared::target::Target;

    /// How each client writes requests with these bodies: head and body, pause, rest.
    fn summary(client: &'static ImitatedClient, body: u64) -> String {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let plan = CheckPlan::new(target);
        let head = b"POST / HTTP/1.1\r\n\r\n".to_vec();
        let head_bytes = head.len();
        let steps = vec![
            Step::Send(head),
            Step::Pause(Duration::from_secs(9)),
            Step::Fill(body),
        ];
        let steps = written(client, &plan, steps)
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
                let sizes = [22, 20_000, 2_000_000].map(|bytes| summary(client, bytes));
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
