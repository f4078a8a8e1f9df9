//! What a check found, the worst first: who loses responses, how often, why, and what to do.

use strum::VariantArray as _;

use super::loss::{Loss, LostShare};
use super::plain_advice::{ServerTraits, advice};
use super::reasons::{self, ReasonCount};
use super::report::{CaseReport, ClientReport, ScenarioReport};
use super::severity::{RequestKind, Severity};
use super::trial::{ConnectionUse, Model};
use rstlab_cli::grouped;
use rstlab_witness::{Cause, Reason};

/// The clients that are hit alike by the loss of such a response.
const GROUPS: [(RequestKind, &[Model]); 6] = [
    (RequestKind::Next, Model::VARIANTS),
    (RequestKind::Usual, &[Model::Ordinary]),
    (
        RequestKind::Usual,
        &[Model::ReadsOn, Model::StopsAtWriteError],
    ),
    (RequestKind::OverBound, Model::VARIANTS),
    (RequestKind::Refused, Model::VARIANTS),
    (RequestKind::Rare, Model::VARIANTS),
];

/// The losses among the scenarios' trials, the worst first.
pub(super) fn losses(scenarios: &[ScenarioReport], server: &ServerTraits<'_>) -> Vec<Loss> {
    let groups = GROUPS.iter();
    let found =
        groups.filter_map(|(requests, clients)| loss(scenarios, *requests, clients, server));
    let mut losses: Vec<_> = found.collect();
    losses.sort_by_key(|loss| std::cmp::Reverse(loss.severity));
    losses
}

fn loss(
    scenarios: &[ScenarioReport],
    requests: RequestKind,
    clients: &[Model],
    server: &ServerTraits<'_>,
) -> Option<Loss> {
    let is_hit = |one: &&ClientReport| clients.contains(&one.client) && lost(one, requests) > 0;
    let hit = |scenario: &ScenarioReport| scenario.clients.iter().any(|one| is_hit(&one));
    let all = || scenarios.iter().flat_map(|scenario| &scenario.clients);
    let losing: Vec<_> = clients
        .iter()
        .copied()
        .filter(|model| all().any(|one| one.client == *model && lost(one, requests) > 0))
        .collect();
    let severity = losing
        .iter()
        .map(|client| Severity::of(requests, *client))
        .max()?;
    let uses = ConnectionUse::VARIANTS.iter();
    let pairs = uses.flat_map(|connection| clients.iter().map(move |client| (connection, client)));
    let shares = pairs.filter_map(|(connection, client)| {
        let (mut lost_all, mut trials_all) = (0, 0);
        for scenario in scenarios {
            for one in &scenario.clients {
                if (one.connection, one.client) == (*connection, *client) {
                    lost_all += lost(one, requests);
                    trials_all += trials(scenario, one, requests);
                }
            }
        }
        (trials_all > 0).then_some(LostShare {
            connection: *connection,
            client: *client,
            lost: lost_all,
            trials: trials_all,
        })
    });
    let shares: Vec<_> = shares.collect();
    let named: Vec<_> = scenarios
        .iter()
        .filter(|one| hit(one))
        .map(|one| one.name)
        .collect();
    let reasons = reasons::sum(all().filter(is_hit).flat_map(|one| &one.reasons));
    let cause = reasons.first().map(|reason| {
        let Ok(reason) = reason.reason.parse::<Reason>();
        Cause::of(Some(&reason), None)
    });
    Some(Loss {
        severity,
        requests,
        sentence: sentence(requests, &losing, &shares),
        proxies: proxies(requests, &shares),
        why: cause.map(|cause| why(cause, &reasons)),
        what_to_do: advice(requests, server, cause),
        clients: losing,
        shares,
        scenarios: named,
        reasons,
    })
}

/// Trials of the client that lost the response to such a request.
fn lost(client: &ClientReport, requests: RequestKind) -> u64 {
    let lost = client.cases.iter().flat_map(CaseReport::lost_by_kind);
    lost.filter(|(kind, _)| *kind == requests)
        .map(|(_, lost)| lost)
        .sum()
}

/// Trials of the client that made such a request. A next request was made where one was lost at all.
fn trials(scenario: &ScenarioReport, client: &ClientReport, requests: RequestKind) -> u64 {
    let mut all = scenario.clients.iter();
    let is_next = all.any(|one| lost(one, RequestKind::Next) > 0);
    let is_one = |case: &&CaseReport| match requests {
        RequestKind::Next => is_next,
        _ => case.requests == requests,
    };
    let cases = client.cases.iter().filter(is_one);
    cases.map(|case| case.counts.trials).sum()
}

/// Proxies whose requests leave the connection to the server open, by their defaults.
const PROXIES_THAT_KEEP: &str = "HAProxy, Envoy, Traefik, Caddy, Apache, nginx from 1.29.7";

/// Proxies whose requests end the connection to the server, by their defaults.
const PROXIES_THAT_CLOSE: &str = "nginx up to 1.29.6";

/// The proxies that send usual requests as those that lost their response.
fn proxies(requests: RequestKind, shares: &[LostShare]) -> Option<String> {
    let lost = ConnectionUse::VARIANTS.iter().filter(|connection| {
        let mut lost = shares.iter().filter(|share| share.lost > 0);
        lost.any(|share| share.connection == **connection)
    });
    let each = lost.map(|connection| {
        let names = match connection {
            ConnectionUse::Kept => PROXIES_THAT_KEEP,
            ConnectionUse::Close => PROXIES_THAT_CLOSE,
        };
        format!("{}: {names}", connection.as_ref())
    });
    let each: Vec<_> = each.collect();
    (requests == RequestKind::Usual).then(|| each.join("; "))
}

fn sentence(requests: RequestKind, clients: &[Model], shares: &[LostShare]) -> String {
    let who = match clients {
        // Whether an ordinary client meets a bound in time is a rare race.
        _ if requests == RequestKind::OverBound => "clients",
        [Model::Ordinary] => "ordinary clients",
        [Model::StopsAtWriteError] => "clients that stop at a write error",
        [Model::ReadsOn | Model::StopsAtWriteError, ..] => {
            "clients that read late (slow networks, proxies)"
        }
        _ => "clients of all kinds",
    };
    let what = match requests {
        RequestKind::Next => "the response to the second request on a kept connection",
        RequestKind::Usual => "responses to requests with up to 64 KiB",
        RequestKind::OverBound => "responses to requests with more than 64 KiB, or slower than 2 s",
        RequestKind::Refused => "the answer to an upload that is refused early",
        RequestKind::Rare => {
            "responses to rare requests (HTTP/1.0, GET with a body, trailers, pipelining, half-close)"
        }
    };
    let sum = |of: fn(&LostShare) -> u64| {
        let shares = shares.iter().filter(|one| clients.contains(&one.client));
        grouped(shares.map(of).sum::<u64>())
    };
    let (lost, trials) = (sum(|share| share.lost), sum(|share| share.trials));
    format!("{who} lose {what}: {lost} of {trials}.")
}

fn why(cause: Cause, reasons: &[ReasonCount]) -> String {
    let each = reasons
        .iter()
        .map(|one| format!("{} {}", one.reason, grouped(one.count)));
    let each: Vec<_> = each.collect();
    format!("{} The kernel: {}.", cause.sentence(), each.join(", "))
}
