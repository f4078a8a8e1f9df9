//! The scenarios: each is a way to send a request with a body, and the rule that says what a server makes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::plan::CheckPlan;
use super::scenario_case::{ScenarioCase, case, rare, size};
use super::script::{RequestHead, Script, Step, content};
use super::severity::RequestKind;
use super::trial::ConnectionUse;
use strum::VariantArray as _;

/// A way to send requests, and the rule that says what a server makes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) rule: &'static str,
    /// What the requests say about the connection: each is tried.
    pub(super) connections: &'static [ConnectionUse],
    pub(super) cases: fn(&Conditions<'_>) -> Vec<ScenarioCase>,
}

/// Under which conditions a scenario's cases are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions<'a> {
    pub(super) plan: &'a CheckPlan,
    pub(super) connection: ConnectionUse,
    /// The smallest number of bytes after an answer that the server was seen not to read.
    pub(super) unread_bytes: Option<u64>,
}

impl<'a> Conditions<'a> {
    /// Whether the server was seen not to read so many bytes after an answer.
    fn exceeds_bound(&self, bytes: u64) -> bool {
        self.unread_bytes.is_some_and(|unread| bytes >= unread)
    }

    /// The plan's request, with what it says about the connection.
    fn head(&self) -> RequestHead<'a> {
        let head = RequestHead::new(self.plan);
        match self.connection {
            ConnectionUse::Kept => head.kept(),
            ConnectionUse::Close => head,
        }
    }
}

const BOTH: &[ConnectionUse] = ConnectionUse::VARIANTS;
const KEPT: &[ConnectionUse] = &[ConnectionUse::Kept];
const CLOSE: &[ConnectionUse] = &[ConnectionUse::Close];

/// The scenarios' names, in the order of reports.
pub fn scenario_names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name)
}

/// The scenarios that a plan asks for.
pub(super) fn selected(plan: &CheckPlan) -> Vec<Scenario> {
    let is_in = |names: &[String], name: &str| names.iter().any(|one| one == name);
    let is_wanted = |one: &Scenario| {
        (plan.scenarios.is_empty() || is_in(&plan.scenarios, one.name))
            && !is_in(&plan.skip, one.name)
            && !(plan.http_1_0 && NEED_HTTP_1_1.contains(&one.name))
            && plan
                .imitated
                .is_none_or(|client| client.scenarios().contains(&one.name))
    };
    SCENARIOS.into_iter().filter(is_wanted).collect()
}

/// Chunks, kept connections and `Expect` are of HTTP/1.1.
const NEED_HTTP_1_1: [&str; 4] = ["body-chunked", "pipelined", "keep-alive", "expect-continue"];

/// Pause between head and body where the gap is not the subject.
const APART: Duration = Duration::from_millis(3);

/// A path that no server has: the server answers with an error before it looks at a body.
const NO_SUCH_PATH: &str = "/rstlab-check/no-such-path";

/// How much of the body is in the same write as the head.
const JOINED_BYTES: u64 = 64 * 1024;

/// How many bytes servers commonly read on after an answer: a server with such a bound loses responses beyond it.
const COMMON_BOUNDS: [u64; 3] = [64 * 1024, 256 * 1024, 2 * 1024 * 1024];

/// The most bytes that a server commonly takes with one read.
const LAST_READ: u64 = 64 * 1024;

/// Length of the slow upload: longer than the 2 s that gunicorn and others read on.
const TRICKLE: Duration = Duration::from_millis(2500);

/// Pause between two bytes of the slow upload.
const TRICKLE_GAP: Duration = Duration::from_millis(50);

/// How long a client waits for `100 Continue` (RFC 9110 §10.1.1 lets it go on without).
const CONTINUE_WAIT: Duration = Duration::from_millis(500);

/// Time for the server to answer the first request and to close before the pipelined one comes.
const PIPELINE_GAP: Duration = Duration::from_millis(5);

pub(super) const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "body-with-head",
        about: "the body right after the head, in one write",
        rule: "RFC 9112 §9.3",
        connections: BOTH,
        cases: |with| {
            each_size(with, |bytes| {
                let joined = bytes.min(JOINED_BYTES);
                let mut first = with.head().length(bytes).bytes();
                first.extend(content(with.plan, joined));
                Script::new(
                    with.plan,
                    vec![Step::Send(first), Step::Fill(bytes - joined)],
                )
            })
        },
    },
    Scenario {
        name: "body-after-gap",
        about: "the body a gap after the head",
        rule: "RFC 9112 §9.6",
        connections: BOTH,
        cases: |with| {
            let gaps = with.plan.body_sizes.iter().flat_map(|bytes| {
                with.plan.gaps.iter().map(|gap| {
                    let steps = with_body_after(*gap, with.head(), *bytes);
                    let label = format!("{}, {}", size(*bytes), humantime::format_duration(*gap));
                    let one = case(label, Script::new(with.plan, steps));
                    one.of(RequestKind::of_body(*bytes))
                })
            });
            gaps.collect()
        },
    },
    Scenario {
        name: "body-large",
        about: "a body larger than common drain bounds",
        rule: "RFC 9112 §9.6",
        connections: BOTH,
        cases: |with| {
            let beyond = |bytes| {
                let script = Script::new(with.plan, with_body(with.head(), bytes));
                let watches_long = with.exceeds_bound(bytes);
                let script = Script {
                    watches_long,
                    ..script
                };
                case(size(bytes), script).of(RequestKind::of_body(bytes))
            };
            large_sizes(with.plan, with.unread_bytes)
                .into_iter()
                .map(beyond)
                .collect()
        },
    },
    Scenario {
        name: "body-trickles",
        about: "a body that trickles in for 2.5 s",
        rule: "RFC 9112 §9.6",
        connections: BOTH,
        cases: |with| {
            let bytes = (TRICKLE.as_millis() / TRICKLE_GAP.as_millis()) as u64;
            let length = with.plan.at_least(bytes);
            let mut steps = vec![with.head().length(length).send()];
            for _ in 0..bytes {
                steps.extend([Step::Pause(TRICKLE_GAP), Step::Fill(1)]);
            }
            steps.push(Step::Fill(length - bytes));
            let label = format!("{bytes} B, one every 50 ms");
            let one = case(label, Script::new(with.plan, steps));
            vec![one.of(RequestKind::OverBound)]
        },
    },
    Scenario {
        name: "body-chunked",
        about: "a chunked body, with and without trailers",
        rule: "RFC 9112 §7.1",
        connections: BOTH,
        cases: |with| {
            let ends = [("", "0\r\n\r\n"), (", trailers", "0\r\nX-Sum: 1\r\n\r\n")];
            let both_ends = |bytes: &u64| {
                ends.map(|(label, last)| {
                    let head = with.head().chunked().send();
                    let mut steps = vec![head, Step::Pause(APART)];
                    if *bytes > 0 {
                        steps.push(Step::Send(format!("{bytes:x}\r\n").into_bytes()));
                        steps.push(Step::Fill(*bytes));
                        steps.push(Step::Send(b"\r\n".to_vec()));
                    }
                    steps.push(Step::Send(last.into()));
                    let one = case(size(*bytes) + label, Script::new(with.plan, steps));
                    one.of(match label {
                        "" => RequestKind::of_body(*bytes),
                        _ => RequestKind::Rare,
                    })
                })
            };
            with.plan.body_sizes.iter().flat_map(both_ends).collect()
        },
    },
    // Few servers read a body of a GET (gunicorn's issue 3334).
    Scenario {
        name: "get-with-body",
        about: "GET with a body, GET with an empty chunked body",
        rule: "RFC 9110 §9.3.1",
        connections: BOTH,
        cases: |with| {
            let get = || with.head().method("GET");
            let chunked = get().chunked().send();
            let no_chunk = Step::Send(b"0\r\n\r\n".to_vec());
            let bytes = with.plan.at_least(22);
            let sized = (format!("GET, {}", size(bytes)), with_body(get(), bytes));
            let empty = (
                "GET, empty chunked".to_owned(),
                vec![chunked, Step::Pause(APART), no_chunk],
            );
            // HTTP/1.0 has no chunks.
            let empty = (!with.plan.http_1_0).then_some(empty);
            let cases = [sized].into_iter().chain(empty).map(|(label, steps)| {
                let script = Script {
                    same_path: with.plan.method == "GET",
                    head_only: false,
                    ..Script::new(with.plan, steps)
                };
                case(label, script).of(RequestKind::Rare)
            });
            cases.collect()
        },
    },
    // A server that closes leaves the second request unread.
    Scenario {
        name: "pipelined",
        about: "a second request behind the body",
        rule: "RFC 9112 §9.3.2",
        connections: KEPT,
        cases: |with| {
            let both = |bytes: &u64| {
                [("at once", Duration::ZERO), ("5 ms later", PIPELINE_GAP)].map(|(when, pause)| {
                    let mut steps = with_body(with.head(), *bytes);
                    steps.extend([Step::Pause(pause), RequestHead::new(with.plan).send_plain()]);
                    let script = Script {
                        responses: 2,
                        ..Script::new(with.plan, steps)
                    };
                    case(format!("{}, {when}", size(*bytes)), script).of(RequestKind::Rare)
                })
            };
            with.plan.body_sizes.iter().flat_map(both).collect()
        },
    },
    // The next request must meet neither a close nor the body of the one before.
    Scenario {
        name: "keep-alive",
        about: "the next request on the kept connection",
        rule: "RFC 9112 §9.3",
        connections: KEPT,
        cases: |with| {
            each_size(with, |bytes| {
                let mut steps = with_body(with.head(), bytes);
                steps.push(Step::AwaitResponse);
                steps.push(RequestHead::new(with.plan).send_plain());
                Script {
                    responses: 2,
                    ..Script::new(with.plan, steps)
                }
            })
        },
    },
    Scenario {
        name: "expect-continue",
        about: "Expect: 100-continue, also where it is refused",
        rule: "RFC 9110 §10.1.1",
        connections: BOTH,
        cases: |with| {
            let own_path = with.plan.target.path.as_str();
            let (small, (early_path, early)) = (with.plan.at_least(22), early(with.plan));
            let cases = [
                (size(small), own_path, small),
                (format!("1 MB, {early}"), early_path, 1_000_000),
            ];
            let cases = cases.map(|(label, path, bytes)| {
                let head = with.head().path(path).length(bytes);
                let steps = vec![
                    head.field("Expect", "100-continue").send(),
                    Step::AwaitContinue(CONTINUE_WAIT),
                    Step::Fill(bytes / 2),
                    // The pause lets a reset that the first half causes arrive before the second half, always.
                    Step::Pause(APART),
                    Step::Fill(bytes - bytes / 2),
                ];
                let script = Script {
                    same_path: path == own_path,
                    ..Script::new(with.plan, steps)
                };
                case(label, script).of(RequestKind::Refused)
            });
            cases.into()
        },
    },
    // The end of the stream may be all that ends an HTTP/1.0 response: a cut response looks whole.
    Scenario {
        name: "http-1.0",
        about: "HTTP/1.0 with a body",
        rule: "RFC 9112 §6.3, §8",
        connections: CLOSE,
        cases: |with| {
            let cases = each_size(with, |bytes| {
                Script::new(with.plan, with_body(with.head().version_1_0(), bytes))
            });
            rare(cases)
        },
    },
    Scenario {
        name: "early-answer",
        about: "an early error answer during an upload",
        rule: "RFC 9112 §9.5, §9.6",
        connections: BOTH,
        cases: |with| {
            let cases = [("1 MB", 1_000_000), ("5 MB", 5_000_000)].map(|(label, bytes)| {
                let (path, early) = early(with.plan);
                let steps = with_body(with.head().path(path), bytes);
                let script = Script {
                    same_path: false,
                    watches_long: with.exceeds_bound(bytes),
                    ..Script::new(with.plan, steps)
                };
                case(format!("{label}, {early}"), script).of(RequestKind::Refused)
            });
            cases.into()
        },
    },
    // The client still waits for its answer after it has ended its side.
    Scenario {
        name: "half-close",
        about: "the client half-closes after its request",
        rule: "RFC 9293 §3.6",
        connections: BOTH,
        cases: |with| {
            let cases = each_size(with, |bytes| {
                let mut steps = with_body(with.head(), bytes);
                steps.push(Step::HalfClose);
                Script::new(with.plan, steps)
            });
            rare(cases)
        },
    },
];

/// The path of uploads that are answered early, and its label.
pub(super) fn early(plan: &CheckPlan) -> (&str, &str) {
    match &plan.early_path {
        Some(path) => (path, path),
        None => (NO_SUCH_PATH, "no such path"),
    }
}

/// Sizes beyond the common bounds, and beyond the one that was found. A server's last read may go [`LAST_READ`] over its
/// bound, so each is exceeded by more, too.
fn large_sizes(plan: &CheckPlan, unread_bytes: Option<u64>) -> BTreeSet<u64> {
    let [.., most] = COMMON_BOUNDS;
    let common = COMMON_BOUNDS.map(|bound| bound + 1);
    let found = unread_bytes.into_iter();
    let found = found.flat_map(|bytes| [bytes, bytes + LAST_READ]);
    let all = common.into_iter().chain([most + LAST_READ]).chain(found);
    all.map(|bytes| plan.at_least(bytes)).collect()
}

/// A case for each of the plan's sizes.
fn each_size(with: &Conditions<'_>, script: impl Fn(u64) -> Script) -> Vec<ScenarioCase> {
    let sizes = with.plan.body_sizes.iter();
    sizes
        .map(|bytes| case(size(*bytes), script(*bytes)).of(RequestKind::of_body(*bytes)))
        .collect()
}

/// Head and body in two writes with a pause between: in one write it is chance whether a server reads a small body
/// with the head.
fn with_body(head: RequestHead<'_>, bytes: u64) -> Vec<Step> {
    with_body_after(APART, head, bytes)
}

fn with_body_after(gap: Duration, head: RequestHead<'_>, bytes: u64) -> Vec<Step> {
    vec![
        head.length(bytes).send(),
        Step::Pause(gap),
        Step::Fill(bytes),
    ]
}
