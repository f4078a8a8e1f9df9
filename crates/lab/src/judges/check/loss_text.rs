//! Lost responses for people: the first sentence of a report, and what is said about each loss.

use super::loss::{Loss, LostShare};
use super::trial::{ConnectionUse, Model};
use super::verdict::CheckVerdict;
use crate::shared::color::{Tone, tone_words};
use crate::shared::wrapped::wrapped;
use rstlab_cli::grouped;
use strum::VariantArray as _;

/// The report that the proof compares with.
const BASELINE: &str = "before.json";

/// Tones of the severities.
pub(super) const SEVERITIES: [(&str, Tone); 4] = [
    ("Critical:", Tone::Bad),
    ("High:", Tone::Bad),
    ("Medium:", Tone::Unsure),
    ("Low:", Tone::Unsure),
];

/// The first sentence of a report: how bad it is, and who is hit.
pub(super) fn headline(verdict: CheckVerdict, losses: &[Loss]) -> String {
    match (losses.first(), verdict) {
        (Some(worst), _) => titled(worst),
        (None, CheckVerdict::CannotTell) => {
            "No loss was seen, but not every scenario can tell.".to_owned()
        }
        (None, CheckVerdict::Harmless) => {
            "Nothing was lost. Connections were reset after responses that came whole.".to_owned()
        }
        (None, _) => "Nothing was lost, and no connection was reset.".to_owned(),
    }
}

/// Who loses what and how often, behind its severity.
fn titled(loss: &Loss) -> String {
    format!("{}: {}", capital(loss.severity.as_ref()), loss.sentence)
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_ascii_uppercase() + rest
}

/// The losses, each with why, what to do, and the command that proves the cure.
pub(super) fn losses_text(url: &str, losses: &[Loss]) -> String {
    let mut text = String::new();
    for (loss, before) in with_before(losses) {
        text += &tone_words(&wrapped(&titled(loss), "", "  "), &SEVERITIES);
        for (name, words) in parts(url, loss, before) {
            text += &wrapped(&format!("{name}: {words}"), "  ", "    ");
        }
    }
    if !losses.is_empty() {
        text += &wrapped(&note(), "", "");
        text += "\n";
    }
    text
}

/// The same as a list in Markdown.
pub(super) fn losses_markdown(url: &str, losses: &[Loss], escaped: fn(&str) -> String) -> String {
    let mut text = String::new();
    for (loss, before) in with_before(losses) {
        let severity = capital(loss.severity.as_ref());
        text += &format!("- **{severity}**: {}\n", escaped(&loss.sentence));
        for (name, words) in parts(url, loss, before) {
            let words = match name {
                PROOF => format!("`{words}`"),
                _ => escaped(&words),
            };
            text += &format!("  - {name}: {words}\n");
        }
    }
    if !losses.is_empty() {
        text += &format!("\n{}\n\n", note());
    }
    text
}

const PROOF: &str = "Proof";

/// Each loss, and the one before it.
fn with_before(losses: &[Loss]) -> impl Iterator<Item = (&Loss, Option<&Loss>)> {
    let before = std::iter::once(None).chain(losses.iter().map(Some));
    losses.iter().zip(before)
}

/// What is said of a loss below its sentence; advice that was given just before is not given again.
fn parts(
    url: &str,
    loss: &Loss,
    before: Option<&Loss>,
) -> impl Iterator<Item = (&'static str, String)> {
    let who = Model::VARIANTS.iter().filter_map(|client| {
        let shares = loss.shares.iter().filter(|one| one.client == *client);
        sum(client.as_ref(), shares)
    });
    let uses = ConnectionUse::VARIANTS.iter().filter_map(|connection| {
        let hit = |one: &&LostShare| loss.clients.contains(&one.client);
        let shares = loss.shares.iter().filter(hit);
        sum(
            connection.as_ref(),
            shares.filter(|one| one.connection == *connection),
        )
    });
    let place = format!(
        "{}; in {}.",
        uses.collect::<Vec<_>>().join(", "),
        loss.scenarios.join(", ")
    );
    let proof = format!(
        "rstlab check {url} --scenario {} --baseline {BASELINE}",
        loss.scenarios.join(" ")
    );
    let is_said = before.is_some_and(|before| before.what_to_do == loss.what_to_do);
    let what_to_do = match is_said {
        true => "as above.".to_owned(),
        false => loss.what_to_do.clone(),
    };
    let parts = [
        ("Who", Some(who.collect::<Vec<_>>().join(", ") + ".")),
        ("Where", Some(place)),
        (
            "Proxies that send so by their defaults",
            loss.proxies.clone(),
        ),
        ("Why", loss.why.clone()),
        ("What to do", Some(what_to_do)),
        (PROOF, Some(proof)),
    ];
    let parts = parts.into_iter();
    parts.filter_map(|(name, words)| Some((name, words?)))
}

/// A name, and how many of these trials lost a response; `None` without trials.
fn sum<'a>(name: &str, shares: impl Iterator<Item = &'a LostShare>) -> Option<String> {
    let (lost, trials) = shares.fold((0, 0), |(lost, trials), one| {
        (lost + one.lost, trials + one.trials)
    });
    let text = format!("{name} {} of {}", grouped(lost), grouped(trials));
    (trials > 0).then_some(text)
}

fn note() -> String {
    format!(
        "For a proof, keep a report of today with --json {BASELINE}, and give both checks the same options."
    )
}
