//! Runs proxies in front of upstreams that change their modes, are stopped and are killed, among all kinds of clients,
//! for so many minutes: `soak [MINUTES]`. At the end every request is accounted for, and no program has grown.
//!
//! A `lane` is a proxy, its upstream and their `client`s; a `watched` program is one whose log and resources are
//! counted.

mod client;
mod lane;
mod watched;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use lane::{Lane, LaneKind};

fn main() -> ExitCode {
    let minutes = env::args().nth(1).unwrap_or_else(|| "2".to_owned());
    let Some(minutes) = minutes
        .parse::<f64>()
        .ok()
        .filter(|it| (0.05..=1440.0).contains(it))
    else {
        eprintln!("soak [MINUTES], 0.05 to 1440");
        return ExitCode::from(2);
    };
    let time = Duration::from_secs_f64(minutes * 60.0);
    let lanes: Vec<_> = LaneKind::ALL
        .map(|kind| (kind, Lane::run(kind, time)))
        .into();
    let mut wrong = Vec::new();
    for (kind, lane) in lanes {
        // A panic has been printed.
        match lane.join() {
            Ok(report) => {
                println!("{report}");
                wrong.extend(report.wrong);
            }
            Err(_) => wrong.push(format!("{kind:?}: a thread panicked")),
        }
    }
    for line in &wrong {
        eprintln!("WRONG: {line}");
    }
    ExitCode::from(u8::from(!wrong.is_empty()))
}
