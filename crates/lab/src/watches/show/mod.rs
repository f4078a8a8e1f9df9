//! `rstlab show`: draws the timelines of stored records, merged from the halves of proxy and upstream, and of captures.

mod found;
mod halves;

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use rstlab_cli::{MAX_RECORDS, Settings};
use rstlab_witness::{Cause, Record};

use crate::shared::color::tone_words;
use crate::shared::given::given;
use crate::shared::output::{Output, print};
use crate::shared::printable::printable;
use crate::shared::timeline::{TIMELINE_TONES, Timeline};
use found::{FoundRecord, FoundRecords};

/// The most files of a directory that are read: as many as a proxy and an upstream keep there.
const MAX_FILES: usize = 2 * MAX_RECORDS;

/// The most characters of an error, whose path may have 4,096.
const MAX_CHARS: usize = 5000;

/// Show stored records: what proxy, upstream and kernel did on each connection that was reset, and why
///
/// It reads the files that rstlab-proxy and rstlab-upstream write with --record. The two halves of a connection are
/// merged by the connection's addresses and judged anew; the oldest connection comes first. If one half of a record of the
/// last 10 seconds is not there yet, it is waited for, for 2 seconds at most. Times are milliseconds since the first event. The pause is the time since the line before. "3 × recv = 128,103" are three calls and the sum of
/// their bytes.
///
/// Of a capture file (pcapng, from tcpdump, tshark, dumpcap or a record) it shows each connection that was reset, and
/// what the packets prove: whether a close sent the RST, or a packet that came after a close caused it. "proxy" is then
/// the side that connected, "upstream" the side that accepted.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all records were shown, 1 a file is no record, a directory has more than 20,000 \
                  records, or there is nothing to show, 2 bad settings."
)]
pub struct ShowArgs {
    /// Directories with records, single records, or capture files (*.pcapng)
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,

    /// Print each record as one line of JSON (crates/lab/schema/record.json describes it)
    #[arg(long)]
    json: bool,

    /// Draw the record, which must be the only one, as SVG into this file, in place of the text
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,

    /// Show the newest N only
    #[arg(long, value_name = "N")]
    last: Option<String>,

    /// Of a capture file, show the connections that were not reset, too
    #[arg(long)]
    all: bool,

    /// Show the records with this cause only, such as unread-at-close; an unknown cause prints the list of all
    #[arg(long, value_name = "CAUSE")]
    cause: Option<String>,
}

/// The settings of `rstlab show`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowConfig {
    paths: Vec<PathBuf>,
    form: ShowForm,
    last: Option<usize>,
    all: bool,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ShowForm {
    Text,
    Json,
    Svg(PathBuf),
}

impl ShowArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<ShowConfig> {
        let last = self.last.as_ref().map(|text| {
            settings.read("--last", text, "a number over 0", |text| {
                text.parse().ok().filter(|last| *last > 0)
            })
        });
        let words = Cause::ALL.map(|cause| (cause.as_str(), cause));
        let cause = self
            .cause
            .as_ref()
            .map(|text| settings.choice("--cause", text, &words));
        let form = match &self.svg {
            Some(path) => ShowForm::Svg(path.clone()),
            None if self.json => ShowForm::Json,
            None => ShowForm::Text,
        };
        Some(ShowConfig {
            paths: self.paths.clone(),
            form,
            last: given(last)?,
            all: self.all,
            cause: given(cause)?,
        })
    }
}

/// Shows the records, and names the files that cannot be read on standard error.
///
/// # Errors
/// There is nothing to show, or the output cannot be written.
pub fn execute(config: &ShowConfig) -> anyhow::Result<ExitCode> {
    let mut found = FoundRecords::new(config.all, MAX_FILES);
    for path in &config.paths {
        found.look(path);
    }
    found.wait_for_halves();
    for trouble in &found.troubles {
        eprintln!("rstlab: {}", printable(trouble, MAX_CHARS));
    }
    let trouble = !found.troubles.is_empty();
    let stored = halves::merged(found.halves).into_iter();
    let mut records: Vec<_> = stored.map(|it| FoundRecord::Stored(it.into())).collect();
    records.extend(found.captured);
    if records.is_empty() && trouble {
        return Ok(ExitCode::FAILURE);
    }
    let records = config.chosen(records)?;
    let mut all = records.iter().filter_map(FoundRecord::record);
    match &config.form {
        ShowForm::Svg(path) => {
            let (Some(record), None) = (all.next(), all.next()) else {
                bail!(
                    "--svg draws one record, and here are {}: name the files of one, or add --last 1",
                    records.len()
                );
            };
            let file = Output::create(Some(path))?;
            file.write(|| Ok(timeline(&record).svg()))?;
        }
        ShowForm::Text => print(all.enumerate().map(|(number, record)| {
            let between = if number == 0 { "" } else { "\n\n" };
            let text = timeline(&record).text();
            format!("{between}{}", tone_words(&text, &TIMELINE_TONES))
        }))?,
        ShowForm::Json => print(all.map(|record| record.to_json() + "\n"))?,
    }
    Ok(ExitCode::from(u8::from(trouble)))
}

/// The timeline of a record, which says if one of the two halves is not there.
fn timeline(record: &Record) -> Timeline {
    let timeline = Timeline::of(record);
    match halves::missing(record) {
        Some(text) => timeline.with_fact("half", &text),
        None => timeline,
    }
}

impl ShowConfig {
    /// The records that were asked for.
    fn chosen(&self, mut records: Vec<FoundRecord>) -> anyhow::Result<Vec<FoundRecord>> {
        let all = records.len();
        if let Some(cause) = self.cause {
            let has_cause = |record: Cow<'_, Record>| record.verdict.cause == cause;
            records.retain(|found| found.record().is_some_and(has_cause));
            if records.is_empty() {
                bail!("none of {all} records has the cause {cause}");
            }
        }
        let more = records
            .len()
            .saturating_sub(self.last.unwrap_or(usize::MAX));
        records.drain(..more);
        Ok(records)
    }
}
