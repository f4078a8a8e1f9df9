//! `rstlab check`: does a server lose responses? Seen from outside, with no privilege.
//!
//! `scenarios` writes what a client does as a `script`, `client` plays a script on one connection and says how the trial
//! ended, `jobs` puts the trials in order, `engine` and `runner` run them, `drain` searches for how far the server reads on after an answer, `verdict` judges, and
//! `budget` shares out the time. Losing bytes on loopback takes three things: the client's receive buffer is small, the
//! client sends everything before it reads, and it starts to read late. The end of a response is then still with the
//! server when the reset comes.

mod args;
mod baseline;
mod budget;
mod cannot_check;
mod client;
mod client_socket;
mod compared_text;
mod comparison;
mod counts;
mod drain;
mod engine;
mod execute;
mod fail_on;
mod imitated;
mod jobs;
mod junit;
mod list;
mod loss;
mod loss_text;
mod losses;
mod markdown;
mod outages;
mod pace;
mod plain_advice;
mod plan;
mod probe;
mod reasons;
mod report;
mod request_args;
mod response;
mod route;
mod run;
mod runner;
mod scenario_case;
mod scenarios;
mod script;
mod sentence;
mod severity;
mod text;
pub mod through;
mod trial;
mod turned_away;
mod verdict;
mod what_to_ask_for;

pub use crate::shared::target::{Address, Target};
pub use args::CheckArgs;
pub use cannot_check::CannotCheck;
pub use comparison::{Change, Comparison, FailedShare, Finding};
pub use counts::{Counts, Outcomes};
pub use drain::{Bound, Drain, DrainKind};
pub use execute::{CheckConfig, CheckTask, execute};
pub use imitated::ImitatedClient;
pub use loss::{Loss, LostShare};
pub use outages::Outages;
pub use pace::RequestPace;
pub use plan::CheckPlan;
pub(crate) use plan::method;
pub use probe::Plain;
pub use reasons::ReasonCount;
pub use report::{
    CaseReport, CheckReport, CheckSettings, ClientReport, FailedCallCount, ScenarioReport,
    StatusCount,
};
pub use run::{run, run_until};
pub use scenarios::scenario_names;
pub use severity::{RequestKind, Severity};
pub(crate) use text::VERDICTS;
pub use trial::{ConnectionUse, Model, SocketCall, TrialOutcome};
pub use verdict::CheckVerdict;
