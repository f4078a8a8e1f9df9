//! The settings for the evidence of resets, and for the records of them.

use std::path::PathBuf;

use anyhow::Context as _;
use rstlab_witness::{Keeping, Level, Recorder, Role, Sources, Takers, Witness};

use crate::Settings;
use crate::allowed::{self, Allowed};

/// Largest number of records of one role in a directory.
pub const MAX_RECORDS: usize = 10_000;

/// A kind of evidence; `None` is the strongest that works.
pub fn evidence() -> Allowed<impl Fn(&str) -> Option<Option<Level>>> {
    let meaning = |level| match level {
        Level::Sockets => "the program's own sockets; needs no privilege",
        Level::Counters => {
            "the same, and the counters of the network namespace;\nneeds no privilege"
        }
        Level::Packets => "the sockets, and a capture of the packets; needs CAP_NET_RAW",
        Level::Kernel => "the sockets, and the kernel's own reason; needs root and tracefs",
    };
    let levels = Level::ALL.map(|level| (level.as_str(), Some(level)));
    let choices = [&[("auto", None)][..], &levels].concat();
    allowed::choice(choices).meaning(Level::ALL.map(|level| (level.as_str(), meaning(level))))
}

/// Reads which kind of evidence is wanted; `auto` is the strongest that works.
pub fn witness_level(settings: &mut Settings, name: &str, text: &str) -> Option<Option<Level>> {
    settings.check(name, text, evidence())
}

/// The settings for a program's witness and its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessOptions {
    /// The program's role.
    pub role: Role,
    /// The evidence asked for; `None` is the strongest that works.
    pub level: Option<Level>,
    /// The directory of the records, if they are kept.
    pub directory: Option<PathBuf>,
    /// What is kept there.
    pub keeping: Keeping,
}

impl WitnessOptions {
    /// Opens the witness of the connections to `port`, and the takers of their ends; call it inside a tokio runtime.
    ///
    /// # Errors
    /// The evidence asked for is not available here, or the directory cannot be written to.
    pub fn open(&self, port: u16) -> anyhow::Result<(Witness, Takers)> {
        let program = self.role.as_str().to_uppercase();
        let mut takers = Takers::default();
        if let Some(directory) = &self.directory {
            let recorder = Recorder::to_dir(directory, self.role, self.keeping)
                .with_context(|| format!("{program}_RECORD={}", directory.display()))?;
            takers = takers.and(recorder);
        }
        let sources = Sources {
            wanted: self.level,
            port,
            for_records: self.directory.is_some(),
            with_payload: self.directory.is_some() && self.keeping.payload,
            shared_dir: self
                .directory
                .as_deref()
                .filter(|_| self.role == Role::Proxy),
        };
        let wanted = self.level.map_or("auto", Level::as_str);
        let witness = Witness::open(&sources)
            .with_context(|| format!("{program}_WITNESS={wanted} does not work here"))?;
        Ok((witness, takers))
    }
}
