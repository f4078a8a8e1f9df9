//! The command line of `rstlab matrix`, and what the command does: it makes the matrix, writes the files, prints the table.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use rstlab_cli::{EXIT_USAGE, Settings, block_on, stop_on_signals};

use super::list::MatrixList;
use super::report::Matrix;
use super::run::{STOP_LIMIT, run};
use super::{html, markdown, text};
use crate::shared::output::{Output, advance, print, progress_bar};
use crate::shared::program::orphans;
use crate::shared::program::proc::named;

/// Starts each server and proxy of a list, checks it, stops it, and prints one table
///
/// Checks each server as `rstlab check URL` does, and each proxy as `rstlab check --through URL` does, one after the
/// other. Each program runs in a process group of its own. It is stopped afterwards, also on Ctrl-C, together with the
/// processes that it left in the background.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The file:\n  \
        [check]                    # may be left out, as each of its keys\n  \
        trials = 50                # of each scenario with each client\n  \
        scenarios = [\"body-large\"] # without it all of them\n  \
        clients = 100              # of each size, behind a proxy\n\n  \
        [[server]]                 # or [[proxy]]\n  \
        name = \"nginx\"\n  \
        command = [\"nginx\", \"-p\", \"{tmp}\", \"-c\", \"{tmp}/nginx.conf\"]  # in the foreground\n  \
        files = [\"nginx.conf\"]     # copied to {tmp}, their placeholders filled in\n  \
        environment = {PORT = \"{port}\"}\n  \
        directory = \"..\"           # where it runs; relative to the file\n  \
        port = 8000                # without it a free one is taken\n  \
        unix = \"{tmp}/socket\"      # in place of a port\n  \
        path = \"/upload\"           # of the requests; their method is method = \"POST\"\n  \
        ready = \"/\"                # a GET of it is answered, or \"connect\" (usual for a proxy)\n  \
        ready_within = \"10s\"\n  \
        version = [\"nginx\", \"-v\"]\n\n\
        Placeholders: {port} or {unix}; {tmp}, a directory of its own, with a file `response` of 614,400 bytes; {bin}, \
        the directory of rstlab itself; for a proxy {upstream}, the address that it shall forward to.\n\
        Exit codes: 0 the matrix was made, whatever it says, 1 a server or proxy could not be checked (its row says \
        why) or it was interrupted, 2 bad settings or a bad file.")]
pub struct MatrixArgs {
    /// The list, a TOML file.
    file: PathBuf,

    /// Write the matrix as JSON (crates/lab/schema/matrix.json describes it).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the matrix as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write the matrix as an HTML page that needs no other file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Check only the entries whose name contains one of these.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,

    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
}

impl MatrixArgs {
    /// The settings; the list is read later.
    pub fn config(&self, _settings: &mut Settings) -> Option<Self> {
        Some(self.clone())
    }

    /// Opens the files for JSON, Markdown and HTML.
    fn open(&self) -> anyhow::Result<[Output; 3]> {
        let open = |path: &Option<PathBuf>| Output::create(path.as_deref());
        Ok([open(&self.json)?, open(&self.markdown)?, open(&self.html)?])
    }
}

/// Makes the matrix, writes the files, prints the table.
///
/// # Errors
/// Standard output is closed, a file can't be written, or a signal interrupted the command.
pub fn execute(config: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let prepared = list(config).and_then(|list| Ok((list, config.open()?)));
    let (list, [json, markdown, html]) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("rstlab: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let matrix = block_on(make(config, &list))?;
    json.write_json(&matrix)?;
    markdown.write(|| Ok(markdown::markdown(&matrix)))?;
    html.write(|| Ok(html::page(&matrix)))?;
    if !config.quiet {
        print([text::text(&matrix)])?;
    }
    Ok(if matrix.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn make(config: &MatrixArgs, list: &MatrixList) -> anyhow::Result<Matrix> {
    let stop = stop_on_signals().context("cannot listen for signals")?;
    let bar = progress_bar(config.quiet, "{msg:44} {bar:30} {elapsed}");
    let making = run(list, |number, done, all| {
        let name = list.entries.get(number).map_or("", |entry| &entry.name);
        bar.set_message(format!("{} of {}: {name}", number + 1, list.entries.len()));
        advance(&bar, done, all);
    });
    let made = tokio::select! {
        matrix = making => Some(matrix),
        () = stop.cancelled() => None,
    };
    let left = orphans::end(STOP_LIMIT).await;
    bar.finish_and_clear();
    made.with_context(|| match left.first() {
        None => "interrupted: no table was made, and nothing is left running".to_owned(),
        Some(process) => format!(
            "interrupted: no table was made, and {} can't be ended",
            named(process)
        ),
    })
}

/// The list without the entries that `--only` leaves out.
fn list(config: &MatrixArgs) -> anyhow::Result<MatrixList> {
    let file = &config.file;
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut list = MatrixList::parse(file, &text)?;
    let names = list.entries.iter().map(|entry| entry.name.clone());
    let names: Vec<_> = names.collect();
    let unknown = |part: &&String| !names.iter().any(|name| name.contains(part.as_str()));
    if let Some(part) = config.only.iter().find(unknown) {
        anyhow::bail!(
            "--only {part:?}: no name contains it; there are: {}",
            names.join("; ")
        );
    }
    if !config.only.is_empty() {
        let wanted = |name: &str| config.only.iter().any(|part| name.contains(part.as_str()));
        list.entries.retain(|entry| wanted(&entry.name));
    }
    Ok(list)
}
