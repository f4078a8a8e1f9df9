//! Resets of every kind, a thousand each, and what the witness says of them. Needs root and a mounted tracefs:
//! `cargo test -p rstlab-tests --features kernel --test verdicts -- --nocapture` prints the matrices.

#![cfg(feature = "kernel")]

mod kinds;
mod lab;
mod matrix;

use rstlab_witness::{Cause, Evidence, Known, Level, Record, Verdict};

use kinds::KINDS;
use lab::Lab;
use matrix::Matrix;
use tokio::sync::Mutex;

/// One test at a time: the counters are those of the whole machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Resets of each kind.
const COUNT: usize = 1000;

/// What the record's sockets alone would have said.
fn unprivileged(record: &Record) -> Verdict {
    let evidence = Evidence {
        kernel: None,
        packets: None,
        ..record.evidence.clone()
    };
    Verdict::of(&evidence, record.server)
}

/// What the packets and the sockets say: not a word of the kernel's.
fn independent(record: &Record) -> Verdict {
    let evidence = Evidence {
        kernel: None,
        ..record.evidence.clone()
    };
    Verdict::of(&evidence, record.server)
}

/// The kernel's verdicts of all records against the way they were made, and the unprivileged ones against those.
fn judge(title: &str, all: &[(&kinds::Kind, Vec<Record>)]) {
    let (mut made, mut guessed) = (Matrix::default(), Matrix::default());
    for (kind, records) in all {
        for record in records {
            let Verdict { cause, known, .. } = record.verdict;
            assert_eq!(known, Known::Proved, "{}: {record:?}", kind.name);
            // Where the timing decides, whoever saw the packets knows which it was.
            let truth = kind.cause.unwrap_or_else(|| independent(record).cause);
            made.add(&format!("{}: {truth}", kind.name), truth, cause);
            let guess = unprivileged(record);
            assert_eq!(guess.known, Known::Inferred, "{}: {record:?}", kind.name);
            guessed.add(&format!("{}: {cause}", kind.name), cause, guess.cause);
        }
    }
    println!("\n{title}: how it was made, and what the kernel's evidence says\n{made}");
    println!("{title}: what the kernel's evidence says, and what the sockets alone say\n{guessed}");
    assert_eq!(made.off_the_diagonal(), 0, "{made}");
    let agree = 1.0 - guessed.off_the_diagonal() as f64 / guessed.total() as f64;
    println!("the sockets alone agree in {:.2} %", agree * 100.0);
    assert!(agree >= 0.99, "{guessed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_of_each_kind() {
    let _alone = ALONE.lock().await;
    let mut all = Vec::new();
    for kind in &KINDS {
        let lab = Lab::start(kind, Some(Level::Kernel)).await;
        all.push((kind, lab.resets(COUNT, 8, None).await));
    }
    judge("one kind after the other", &all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_of_kinds_at_32_connections() {
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

/// Without any privilege: the counters count one that comes alone, and only that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counters_count_one_at_a_time() {
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
    // Others on this machine may move the counters at the same time; not every time.
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
