//! Makes a thousand resets of each kind, and compares the verdicts with how the resets were made. Needs root and a mounted tracefs:
//! `cargo test -p rstlab-tests --features kernel --test verdicts -- --nocapture` prints the matrices.

#![cfg(feature = "kernel")]

mod kinds;
mod lab;
mod matrix;

use rstlab_witness::{Cause, Evidence, Known, Level, Record, Verdict};

use kinds::KINDS;
use lab::Lab;
use matrix::CauseMatrix;
use tokio::sync::Mutex;

/// One test at a time: the counters are those of the whole machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Resets of each kind.
const COUNT: usize = 1000;

/// The verdict by the sockets alone.
fn unprivileged(record: &Record) -> Verdict {
    let evidence = Evidence {
        kernel: None,
        packets: None,
        ..record.evidence.clone()
    };
    Verdict::of(&evidence, record.server)
}

/// The verdict by packets and sockets, without the kernel's evidence.
fn independent(record: &Record) -> Verdict {
    let evidence = Evidence {
        kernel: None,
        ..record.evidence.clone()
    };
    Verdict::of(&evidence, record.server)
}

/// The kernel's reason for the RST that decided; empty if it sent none.
fn reason(record: &Record) -> &str {
    let reset = (record.evidence.kernel.as_ref()).and_then(|word| word.reset.as_ref());
    reset.map_or("", |reset| {
        reset.reason.as_ref().expect("Linux 6.12").as_str()
    })
}

/// Reasons that the kernel may give for a reset that was made in this way. The end of a process and the close of a kept
/// connection may also send a FIN alone.
fn possible_reasons(made: Option<Cause>) -> &'static [&'static str] {
    let of_a_close = &[
        "TCP_ABORT_ON_CLOSE",
        "TCP_ABORT_ON_DATA",
        "TCP_TIMEWAIT_SOCKET",
        "",
    ];
    match made {
        None => &of_a_close[..3],
        Some(Cause::LingerZero) => &["TCP_STATE"],
        Some(Cause::ClosedWithoutAnswer) => &[""],
        Some(_) => of_a_close,
    }
}

/// The cause behind the kernel's reason, by a table that the verdict does not use.
fn meaning(reason: &str) -> Cause {
    match reason {
        "TCP_ABORT_ON_CLOSE" => Cause::UnreadAtClose,
        "TCP_ABORT_ON_DATA" => Cause::DataAfterClose,
        "TCP_TIMEWAIT_SOCKET" => Cause::LateData,
        other => panic!("{other}"),
    }
}

/// The kernel's verdicts of all records against the way they were made, those of the packets against the same, and the
/// unprivileged ones against the kernel's.
fn judge(title: &str, all: &[(&kinds::Kind, Vec<Record>)]) {
    let [mut made, mut shown, mut guessed] = [(); 3].map(|()| CauseMatrix::default());
    for (kind, records) in all {
        for record in records {
            let Verdict { cause, known, .. } = record.verdict;
            assert_eq!(known, Known::Proved, "{}: {record:?}", kind.name);
            let (name, reason) = (kind.name, reason(record));
            let possible = possible_reasons(kind.cause);
            assert!(possible.contains(&reason), "{name}: {reason:?} {record:?}");
            // If the timing decides the cause, the kernel's reason names it.
            let truth = kind.cause.unwrap_or_else(|| meaning(reason));
            made.add(&format!("{name}: {truth}"), truth, cause);
            shown.add(
                &format!("{name}: {truth}"),
                truth,
                independent(record).cause,
            );
            let guess = unprivileged(record);
            assert_eq!(guess.known, Known::Inferred, "{}: {record:?}", kind.name);
            guessed.add(&format!("{}: {cause}", kind.name), cause, guess.cause);
        }
    }
    println!("\n{title}: how it was made, and what the kernel's evidence says\n{made}");
    println!("{title}: how it was made, and what packets and sockets say\n{shown}");
    println!("{title}: what the kernel's evidence says, and what the sockets alone say\n{guessed}");
    assert_eq!(made.off_the_diagonal(), 0, "{made}");
    assert_eq!(shown.off_the_diagonal(), 0, "{shown}");
    let agree = 1.0 - guessed.off_the_diagonal() as f64 / guessed.total() as f64;
    println!("the sockets alone agree in {:.2} %", agree * 100.0);
    assert!(agree >= 0.99, "{guessed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verdict_on_a_thousand_resets_of_each_kind_is_how_they_were_made() {
    let _alone = ALONE.lock().await;
    let mut all = Vec::new();
    for kind in &KINDS {
        let lab = Lab::start(kind, Some(Level::Kernel)).await;
        all.push((kind, lab.resets(COUNT, 8, None).await));
    }
    judge("one kind after the other", &all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verdict_on_a_mix_of_kinds_at_32_connections_is_how_they_were_made() {
    let _alone = ALONE.lock().await;
    let mut running = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.in_the_mix) {
        let lab = Lab::start(kind, Some(Level::Kernel)).await;
        running.push((kind, tokio::spawn(lab.resets(COUNT / 4, 4, None))));
    }
    assert_eq!(running.len() * 4, 32);
    let mut all = Vec::new();
    for (kind, task) in running {
        all.push((kind, task.await.expect("no panic")));
    }
    judge("a mix at 32 connections", &all);
}

/// Without privileges the counters explain a reset only if no other comes at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counters_count_a_reset_that_comes_alone() {
    let _alone = ALONE.lock().await;
    let kind = KINDS
        .iter()
        .find(|kind| kind.name == "delay")
        .expect("there is one");
    let lab = Lab::start(kind, Some(Level::Counters)).await;
    let records = lab.resets(20, 1, Some(10.0)).await;
    let counted = records.iter().filter(|record| {
        let Verdict { cause, known, .. } = record.verdict;
        assert_ne!(known, Known::Proved, "{record:?}");
        known == Known::Counted && cause == Cause::UnreadAtClose
    });
    // Other programs on this machine may move the counters at the same time, but not every time.
    assert!(counted.count() >= 10, "{records:?}");

    let lab = Lab::start(kind, Some(Level::Counters)).await;
    for record in lab.resets(200, 8, None).await {
        let alone = record.evidence.counted.is_some_and(|counted| counted.alone);
        let known = if alone {
            Known::Counted
        } else {
            Known::Inferred
        };
        assert!(record.verdict.known <= known, "{record:?}");
    }
}
