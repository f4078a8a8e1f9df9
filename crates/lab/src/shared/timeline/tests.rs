//! Tests of the timeline: the lazy case in full, single rules, and any record at all.

use proptest::prelude::*;
use rstlab_wire::SysCall;
use rstlab_witness::{Event, KernelWord, Lane, Process, Reason, Record, Side, State, What};

use super::{MAX_LINES, Timeline};

/// The record of a request in mode lazy, merged from both halves.
fn lazy() -> Record {
    let [proxy, upstream] = [
        include_str!("../../../../witness/tests/records/lazy.proxy.json"),
        include_str!("../../../../witness/tests/records/lazy.upstream.json"),
    ]
    .map(|text| Record::from_json(text).unwrap());
    proxy.merge(upstream).unwrap()
}

/// A record of these events, a millisecond apart.
fn record_of(events: impl IntoIterator<Item = (Lane, What)>) -> Record {
    let event = |(number, (lane, what)): (u64, _)| Event {
        at_ns: 7_000_000 + number * 1_000_000,
        lane,
        what,
    };
    Record {
        events: (0..).zip(events).map(event).collect(),
        ..lazy()
    }
}

fn call(call: SysCall, returned: u64) -> What {
    What::Call {
        call,
        returned: Some(returned),
        errno: None,
    }
}

fn failed(call: SysCall, errno: i32) -> What {
    What::Call {
        call,
        returned: None,
        errno: Some(errno),
    }
}

fn packet(from: Side, flags: &str, payload_bytes: u32) -> What {
    What::Packet {
        from,
        flags: flags.to_owned(),
        payload_bytes,
        seq: 1,
    }
}

fn note(text: &str) -> What {
    What::Note {
        text: text.to_owned(),
    }
}

/// The words on the lines of the timeline, without the numbers and the vertical lines.
fn words(record: &Record) -> Vec<String> {
    let text = Timeline::of(record).text();
    let lines = text.lines().skip(4).take_while(|line| !line.is_empty());
    lines
        .map(|line| {
            let line: String = line.chars().skip(20).collect();
            line.replace('│', "").trim().to_owned()
        })
        .collect()
}

#[test]
fn the_timeline_of_lazy_takes_100_columns() {
    let text = Timeline::of(&lazy()).text();
    assert_eq!(text, include_str!("lazy.txt"));
}

#[test]
fn every_timeline_fits_into_80_columns_and_says_the_same() {
    for columns in [40, 80, 90, 100] {
        let text = Timeline::of(&lazy()).text_in(columns);
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|it| it <= columns.max(80)), "{text}");
        let words = |text: &str| -> Vec<String> {
            let parts = text.split([' ', '\n', '│', '─', '═', '├', '┤', '╡', '►', '◄']);
            let mut words: Vec<_> = parts.map(str::to_owned).collect();
            words.sort();
            words.retain(|word| !word.is_empty());
            words
        };
        assert_eq!(words(&text), words(include_str!("lazy.txt")));
    }
}

#[test]
fn many_events_of_a_kind_share_a_line_and_an_important_event_has_its_own() {
    let response = (0..30).flat_map(|_| {
        [
            (Lane::Wire, packet(Side::Server, "P.", 20_480)),
            (Lane::Wire, packet(Side::Client, ".", 0)),
            (Lane::Proxy, call(SysCall::Recv, 20_480)),
        ]
    });
    let mut events = vec![
        (Lane::Proxy, call(SysCall::Writev, 93)),
        (Lane::Wire, packet(Side::Client, "P.", 93)),
        (Lane::Proxy, call(SysCall::Writev, 22)),
        (Lane::Wire, packet(Side::Client, "P.", 22)),
        (Lane::Upstream, call(SysCall::Recv, 93)),
    ];
    events.extend(response);
    events.extend((0..4).map(|_| (Lane::Proxy, call(SysCall::Writev, 1000))));
    events.push((Lane::Upstream, call(SysCall::Close, 0)));
    events.extend([22, 23].map(|bytes| (Lane::Proxy, call(SysCall::Recv, bytes))));
    events.push((Lane::Proxy, call(SysCall::Recv, 0)));
    events.push((Lane::Proxy, failed(SysCall::Writev, 32)));
    assert_eq!(
        words(&record_of(events)),
        [
            "writev = 93",
            "├───── 93 bytes ──────►",
            "writev = 22",
            "├───── 22 bytes ──────►",
            "recv = 93",
            // The first read of the answer has its own line.
            "◄──── 20,480 bytes ───┤",
            "├──────── ACK ────────►",
            "recv = 20,480",
            "593,920 bytes in 29",
            "◄─────────────────────┤",
            "├───── 29 × ACK ──────►",
            "29 × recv = 593,920",
            "4 × writev = 4,000",
            "close",
            "recv = 22",
            "recv = 23",
            "recv = 0, end of stream",
            "writev: 32 EPIPE",
        ]
    );
}

#[test]
fn the_numbers_are_milliseconds_and_the_pause_since_the_line_before() {
    let mut record = record_of([
        (Lane::Client, note("one")),
        (Lane::Client, note("two")),
        (Lane::Client, note("three")),
        (Lane::Client, note("an hour")),
        (Lane::Client, note("for ever")),
    ]);
    record.events[1].at_ns += 2_999;
    record.events[2].at_ns += 1_234_000_000;
    record.events[3].at_ns += 3_601_240_000_000;
    record.events[4].at_ns = u64::MAX;
    let text = Timeline::of(&record).text();
    for line in [
        "    0.000            one ",
        "    1.002    +1.002  two ",
        " 1236.000 +1234.998  three ",
        "  3601.2s  +3600.0s  an hour ",
        "  213503d  +213503d  for ever ",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line}\n{text}");
    }
}

#[test]
fn a_kernel_event_takes_two_lines_and_a_remark_stands_behind_its_call() {
    let killed = Process {
        name: Some("worker".to_owned()),
        pid: 7,
    };
    let mut record = record_of([
        (Lane::Upstream, call(SysCall::Recv, 93)),
        (Lane::Upstream, note("of 115")),
        (Lane::Kernel, What::Killed { process: killed }),
        (
            Lane::Kernel,
            What::Reset {
                from: Side::Server,
                reason: Some(Reason::AbortOnClose),
                state: Some(State::Close),
            },
        ),
        (Lane::Wire, note("nothing more")),
    ]);
    record.events[1].at_ns = record.events[0].at_ns;
    assert_eq!(
        words(&record),
        [
            "recv = 93 (of 115)",
            "SIGKILL for",
            "worker, pid 7",
            "RST from upstream",
            "TCP_ABORT_ON_CLOSE in CLOSE",
            "nothing more",
        ]
    );
}

#[test]
fn the_facts_say_what_is_not_certain() {
    let mut record = lazy();
    record.evidence.kernel = None;
    record.evidence.packets = None;
    record.verdict = rstlab_witness::Verdict::of(&record.evidence, record.server);
    record.verdict.disagreement = Some("one says so".to_owned());
    record.outcome = Some("whole".to_owned());
    record.left_out = 1234;
    let text = Timeline::of(&record).text();
    for line in [
        "known     inferred, nothing that was seen proves it\n",
        "RST by    not known\n",
        "but       the evidence disagrees: one says so\n",
        "client    got the whole response: the reset cost nothing\n",
        "left out  1,234 events in the middle were not kept\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

/// A RST that the kernel did not send, or did not explain, is proved by its packets.
#[test]
fn the_facts_name_the_evidence_that_proved_the_cause() {
    let known = |change: fn(&mut KernelWord)| {
        let mut record = lazy();
        change(record.evidence.kernel.as_mut().unwrap());
        record.verdict = rstlab_witness::Verdict::of(&record.evidence, record.server);
        let text = Timeline::of(&record).text();
        let line = text.lines().find(|line| line.starts_with("known "));
        line.unwrap().to_owned()
    };
    let by_the_packets = "known     proved, by the packets";
    assert_eq!(
        known(|_| ()),
        "known     proved, by the kernel's reason TCP_ABORT_ON_DATA"
    );
    assert_eq!(known(|word| *word = KernelWord::default()), by_the_packets);
    let unexplained = |word: &mut KernelWord| {
        word.reset.as_mut().unwrap().reason = Some(Reason::NotSpecified);
    };
    assert_eq!(known(unexplained), by_the_packets);
}

#[test]
fn a_long_timeline_leaves_its_middle_out() {
    let notes = (0..1000).map(|number| (Lane::Proxy, note(&format!("note {number}"))));
    let record = record_of(notes);
    let words = words(&record);
    assert_eq!(words.len(), MAX_LINES);
    assert_eq!(words[49], "note 49");
    assert_eq!(words[50], "… 801 lines are not drawn");
    assert_eq!(words[51], "note 851");
    assert_eq!(words[199], "note 999");
    assert!(Timeline::of(&record).svg().len() < 100_000);
}

#[test]
fn the_svg_has_the_same_text_and_needs_no_other_file() {
    let svg = Timeline::of(&lazy()).svg();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .filter_map(|node| node.text())
        .collect();
    for text in [
        "POST /",
        "+0.768",
        "writev = 93 (head)",
        "22 bytes",
        "128,103 bytes in 4",
        "TCP_ABORT_ON_DATA in FIN_WAIT1",
        "recv: 104 ECONNRESET",
        "data-after-close. The upstream had closed; then more bytes came from the peer.",
    ] {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
    let root = document.root_element();
    assert_eq!(root.attribute("width"), Some("1000"));
    let background = root
        .children()
        .find(|node| node.has_tag_name("rect"))
        .unwrap();
    assert_eq!(background.attribute("fill"), Some("#ffffff"));
    for outside in ["<script", "href", "url(", "@import", "@font-face"] {
        assert!(!svg.contains(outside), "{outside}");
    }
}

#[test]
fn text_of_unknown_origin_is_escaped_in_both_pictures() {
    let mut record = lazy();
    let nasty = "</text><script>alert('&')</script>\u{1b}[31m\u{0}\u{202e}\u{fffe}";
    record.request = Some(nasty.to_owned());
    record.outcome = Some(nasty.to_owned());
    record.verdict.disagreement = Some(nasty.to_owned());
    record.verdict.reason = Some(Reason::Other(nasty.into()));
    record.events[0].what = note(nasty);
    record.events[2].what = packet(Side::Client, nasty, 0);
    let timeline = Timeline::of(&record);
    let svg = timeline.svg();
    let document = roxmltree::Document::parse(&svg).unwrap();
    assert!(
        !document
            .descendants()
            .any(|node| node.has_tag_name("script"))
    );
    let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!timeline.text().contains(odd));
}

fn any_what() -> impl Strategy<Value = What> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Server)];
    let calls = prop_oneof![
        Just(SysCall::Recv),
        Just(SysCall::Writev),
        Just(SysCall::Unsent),
        Just(SysCall::SoError),
        Just(SysCall::LingerZero),
    ];
    let text = || "(\\PC|[ab \n\u{1b}]){0,60}";
    let process = || {
        (text(), any::<u32>()).prop_map(|(name, pid)| Process {
            name: Some(name),
            pid,
        })
    };
    prop_oneof![
        (calls, any::<Option<u64>>(), any::<Option<i32>>()).prop_map(|(call, returned, errno)| {
            What::Call {
                call,
                returned,
                errno,
            }
        }),
        (side(), "[SFRP.]{0,4}", any::<u32>()).prop_map(|(from, flags, payload_bytes)| {
            What::Packet {
                from,
                flags,
                payload_bytes,
                seq: 0,
            }
        }),
        (side(), text()).prop_map(|(from, word)| What::Reset {
            from,
            reason: Some(Reason::Other(word.as_str().into())),
            state: Some(State::Other(word.into())),
        }),
        (side(), process()).prop_map(|(from, by)| What::Closed {
            from,
            state: State::FinWait1,
            by,
        }),
        process().prop_map(|process| What::Killed { process }),
        text().prop_map(|text| What::Note { text }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The timeline of any record has at most 100 columns as text, is valid XML as SVG, and does not panic.
    #[test]
    fn any_record_can_be_drawn(
        events in proptest::collection::vec((any::<u64>(), 0_usize..5, any_what()), 0..300),
        unix_time: u64,
        request in "\\PC{0,400}",
    ) {
        let lanes = [Lane::Client, Lane::Proxy, Lane::Wire, Lane::Upstream, Lane::Kernel];
        let mut record = Record { unix_time, request: Some(request), ..lazy() };
        record.events = events
            .into_iter()
            .map(|(at_ns, lane, what)| Event { at_ns, lane: lanes[lane], what })
            .collect();
        record.events.sort_by_key(|event| event.at_ns);
        let timeline = Timeline::of(&record);
        for line in timeline.text().lines() {
            prop_assert!(line.chars().count() <= 100, "{line}");
        }
        let svg = timeline.svg();
        prop_assert!(roxmltree::Document::parse(&svg).is_ok());
    }
}
