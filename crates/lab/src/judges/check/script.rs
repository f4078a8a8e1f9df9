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
            steps = client.writes(plan, steps);
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
