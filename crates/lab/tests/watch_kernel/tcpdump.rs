//! `rstlab watch` at 2,000 resets a second.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::SockRef;

use crate::beside::{alone, connection, listener, reset};
use crate::compare::Compare;

/// Makes resets of several kinds at a listener, `rate` a second; returns their number.
fn load(listener: &TcpListener, rate: u32, seconds: u32) -> u32 {
    let (to_writer, streams) = mpsc::channel::<TcpStream>();
    let writer = thread::spawn(move || {
        for mut stream in streams {
            while stream.write_all(&[0; 1000]).is_ok() {}
        }
    });
    let begun = Instant::now();
    for n in 0..rate * seconds {
        let due = begun + Duration::from_secs(1) * n / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match n % 4 {
            0 => {
                reset(listener);
            }
            1 => {
                let (server, mut client) = connection(listener);
                drop(server);
                client.write_all(b"x").expect("sends");
                let _ = client.write_all(b"y");
            }
            2 => {
                let (server, _client) = connection(listener);
                let socket = SockRef::from(&server);
                socket.set_linger(Some(Duration::ZERO)).expect("sets");
                drop(server);
            }
            // The server closes while the client writes on another processor, so segments are on the way.
            _ => {
                let (server, client) = connection(listener);
                to_writer.send(client).expect("it runs");
                server.peek(&mut [0]).expect("arrives");
                drop(server);
            }
        }
    }
    let took = begun.elapsed();
    drop(to_writer);
    writer.join().expect("ends");
    eprintln!("{} connections reset in {took:?}", rate * seconds);
    rate * seconds
}

fn names_every_rst_at_2000_a_second(witness: &str) {
    let _alone = alone();
    let (listener, address) = listener();
    let compare = Compare::start(witness, address);
    let made = load(&listener, 2000, 3);
    let told = compare.finish();
    // If a busy machine loses packets, no RST is lost, but the evidence of the lost packets is.
    let whole =
        !told.summary.contains("other packets") || told.summary.contains("other packets: 0");
    let count = |causes: &[&str]| {
        let of = |record: &&Value| causes.contains(&record["cause"].as_str().unwrap_or_default());
        u32::try_from(told.firsts().filter(of).count()).expect("a number")
    };
    let causes = [
        count(&["unread-at-close"]),
        count(&["data-after-close", "late-data"]),
        count(&["linger-zero"]),
    ];
    let unsure = count(&["unknown", "gone"]);
    eprintln!(
        "{witness}: {} RSTs, {causes:?} and {unsure} unsure, {:?} of processor time; {}",
        told.records.len(),
        told.processor_time,
        told.summary
    );
    assert_eq!(
        told.firsts().count(),
        made as usize,
        "one for each connection"
    );
    if whole {
        assert_eq!(causes, [made / 2, made / 4, made / 4]);
    } else {
        assert_eq!(causes.iter().sum::<u32>() + unsure, made);
    }
}

#[test]
fn the_kernel_names_every_rst_that_tcpdump_sees() {
    names_every_rst_at_2000_a_second("kernel");
}

#[test]
fn the_packets_name_every_rst_that_tcpdump_sees() {
    names_every_rst_at_2000_a_second("packets");
}

/// Captured packets add requests, and leave the kernel's causes as they are.
#[test]
fn the_kernel_names_every_rst_beside_captured_packets_too() {
    names_every_rst_at_2000_a_second("kernel --http");
}
