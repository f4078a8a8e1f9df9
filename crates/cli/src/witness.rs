use std::path::PathBuf;

use anyhow::Context as _;
use rstlab_witness::{Level, Recorder, Role, Witness};

use crate::Settings;

/// Most records of one role in a directory.
pub const MOST_RECORDS: usize = 10_000;

/// Reads which kind of evidence is wanted; `auto` is the strongest that works.
pub fn witness_level(settings: &mut Settings, name: &str, text: &str) -> Option<Option<Level>> {
    let mut choices = vec![("auto", None)];
    choices.extend(Level::ALL.map(|level| (level.as_str(), Some(level))));
    settings.choice(name, text, &choices)
}

/// How a program finds out why a connection was reset, and where it keeps its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessOptions {
    role: Role,
    wanted: Option<Level>,
    directory: Option<PathBuf>,
    most: usize,
}

impl WitnessOptions {
    /// Checks the settings `…_WITNESS`, `…_RECORD` and `…_RECORD_MOST` of a program.
    pub fn read(
        settings: &mut Settings,
        role: Role,
        witness: &str,
        record: &str,
        most: &str,
    ) -> Option<Self> {
        let name = |what: &str| format!("{}_{what}", role.as_str().to_uppercase());
        let wanted = witness_level(settings, &name("WITNESS"), witness);
        let allowed = format!("a number from 1 to {MOST_RECORDS}");
        let most = settings.read(&name("RECORD_MOST"), most, &allowed, |text| {
            let most = text.parse().ok();
            most.filter(|most| (1..=MOST_RECORDS).contains(most))
        });
        Some(Self {
            role,
            wanted: wanted?,
            directory: (!record.is_empty()).then(|| record.into()),
            most: most?,
        })
    }

    /// Opens the witness of the connections to `port`; call it inside a tokio runtime.
    ///
    /// # Errors
    /// What is wanted does not work, or the directory cannot be written to.
    pub fn open(&self, port: u16) -> anyhow::Result<Witness> {
        let program = self.role.as_str().to_uppercase();
        let recorder = self.directory.as_ref().map(|directory| {
            Recorder::to_dir(directory, self.role, self.most)
                .with_context(|| format!("{program}_RECORD={}", directory.display()))
        });
        let wanted = self.wanted.map_or("auto", Level::as_str);
        Witness::open(self.wanted, port, recorder.transpose()?)
            .with_context(|| format!("{program}_WITNESS={wanted} does not work here"))
    }
}
