//! Each of the upstream's modes behind the real proxy: the resets, the losses, and what the clients can tell of them.

use rstlab_tests::{Reply, exchange, field, post_head, proxy, upstream};

const REQUESTS: u64 = 20;
const RESPONSE_BYTES: u64 = 614_400;

/// A run of [`REQUESTS`] requests, ended.
struct ModeRun {
    replies: Vec<Reply>,
    /// Requests whose body the upstream did not read. If a busy machine keeps the upstream waiting for longer than the gap,
    /// it reads head and body together.
    unread: u64,
    resets: u64,
    harmless: u64,
    truncated: u64,
    no_response: u64,
    log: Vec<String>,
}

/// Sends the requests through a proxy that pauses between head and body, so that the body comes late.
fn run(mode: &str, settings: &[(&str, &str)], body_bytes: usize) -> ModeRun {
    let upstream = upstream(&[&[("UPSTREAM_MODE", mode)], settings].concat());
    let proxy = proxy(upstream.address, &[("PROXY_GAP", "2ms")]);
    let mut request = post_head("/", body_bytes as u64).into_bytes();
    request.resize(request.len() + body_bytes, b'b');
    let replies = (0..REQUESTS)
        .map(|_| exchange(proxy.address, &request).expect("the proxy listens"))
        .collect();
    let (proxy, upstream) = (proxy.stop(), upstream.stop());
    assert_eq!(proxy.status.code(), Some(0));
    assert_eq!(upstream.status.code(), Some(0));
    assert_eq!(proxy.summary("requests"), REQUESTS);
    let unread = |line: &&String| field(line, "body_bytes") == Some("0");
    ModeRun {
        replies,
        unread: upstream.log.iter().filter(unread).count() as u64,
        resets: proxy.summary("resets"),
        harmless: proxy.summary("harmless"),
        truncated: proxy.summary("truncated"),
        no_response: proxy.summary("no_response"),
        log: proxy.log,
    }
}

fn assert_each_unread_body_resets(run: &ModeRun) {
    assert!(run.unread > 0, "the proxy did not pause");
    assert_eq!(run.resets, run.unread, "{:#?}", run.log);
}

fn assert_all_whole(run: &ModeRun, status: u16) {
    for reply in &run.replies {
        assert!(
            reply.is_whole() && reply.status == Some(status),
            "{reply:?}"
        );
    }
}

#[test]
fn lazy_resets_and_the_proxy_counts_every_cut_response() {
    let run = run("lazy", &[], 22);
    assert_each_unread_body_resets(&run);
    let line = "recv() failed (104: Connection reset by peer) while reading upstream";
    assert!(
        run.log.iter().any(|text| text.contains(line)),
        "{:#?}",
        run.log
    );

    // The proxy calls those responses truncated that the clients got truncated, and the clients can tell.
    let (whole, cut): (Vec<_>, Vec<_>) = run.replies.iter().partition(|reply| reply.is_whole());
    assert_eq!(run.truncated + run.no_response, cut.len() as u64);
    assert_eq!(run.harmless + run.truncated + run.no_response, run.resets);
    assert_eq!(
        run.truncated + run.no_response + whole.len() as u64,
        REQUESTS
    );
    for reply in cut {
        match reply.status {
            Some(200) => {
                assert_eq!(reply.expected_bytes, Some(RESPONSE_BYTES));
                assert!(reply.body_bytes < RESPONSE_BYTES, "{reply:?}");
            }
            status => assert_eq!(status, Some(502), "{reply:?}"),
        }
    }
}

#[test]
fn drain_and_linger_do_not_reset() {
    for mode in ["drain", "linger"] {
        let run = run(mode, &[], 22);
        assert_eq!(run.resets, 0, "{mode}: {:#?}", run.log);
        assert_all_whole(&run, 200);
    }
}

#[test]
fn cap_does_not_reset_on_either_side_of_its_cap() {
    let small = run("cap", &[("UPSTREAM_MAX_BODY", "22")], 22);
    assert_eq!(small.resets, 0, "{:#?}", small.log);
    assert_all_whole(&small, 200);

    let large = run("cap", &[("UPSTREAM_MAX_BODY", "22")], 100_000);
    assert_eq!(large.resets, 0, "{:#?}", large.log);
    assert_all_whole(&large, 413);
}

#[test]
fn delay_moves_the_reset_but_does_not_prevent_it() {
    // Longer than a busy machine takes for a response, shorter than the proxy watches (1 s).
    let run = run("delay", &[("UPSTREAM_CLOSE_DELAY", "500ms")], 22);
    assert_each_unread_body_resets(&run);
    // The response had time to arrive: every reset came after it.
    assert_eq!(run.harmless, run.resets, "{:#?}", run.log);
    assert_all_whole(&run, 200);
}

#[test]
fn abort_resets_whatever_was_read() {
    let run = run("abort", &[], 22);
    assert_eq!(run.resets, REQUESTS, "{:#?}", run.log);
}

#[test]
fn an_upload_over_the_proxy_s_cap_gets_its_whole_413_every_time() {
    let upstream = upstream(&[("UPSTREAM_MODE", "drain")]);
    let proxy = proxy(upstream.address, &[("PROXY_MAX_BODY", "1MiB")]);
    let body_bytes = 50_000_000;
    let mut request = post_head("/", body_bytes as u64).into_bytes();
    request.resize(request.len() + body_bytes, b'b');
    for _ in 0..10 {
        let reply = exchange(proxy.address, &request).unwrap();
        assert!(reply.is_whole() && reply.status == Some(413), "{reply:?}");
        assert!(reply.end.is_ok(), "{reply:?}");
    }
}

fn assert_all_cut(run: &ModeRun) {
    for reply in &run.replies {
        assert_eq!(reply.status, Some(200), "{reply:?}");
        assert_eq!(reply.expected_bytes, Some(RESPONSE_BYTES), "{reply:?}");
        assert!(reply.body_bytes <= RESPONSE_BYTES / 2, "{reply:?}");
    }
}

#[test]
fn truncate_cuts_every_response_and_resets_nothing() {
    let run = run("truncate", &[], 22);
    assert_eq!(run.resets, 0, "{:#?}", run.log);
    assert_all_cut(&run);
    for reply in &run.replies {
        assert_eq!(reply.body_bytes, RESPONSE_BYTES / 2, "{reply:?}");
    }
}

#[test]
fn kill_cuts_every_response_and_resets_if_the_body_was_not_read() {
    let run = run("kill", &[], 22);
    // If the new process takes longer to start than the gap, it reads head and body at once.
    assert!(run.resets <= run.unread, "{:#?}", run.log);
    for reply in &run.replies {
        assert!(!reply.is_whole() || reply.status == Some(502), "{reply:?}");
    }
}

#[test]
fn idle_close_loses_nothing_if_the_proxy_keeps_no_connection() {
    let run = run("idle-close", &[], 22);
    assert_eq!(run.resets, 0, "{:#?}", run.log);
    assert_all_whole(&run, 200);
}

#[test]
fn idle_close_resets_the_second_request_of_a_proxy_that_keeps_connections() {
    let upstream = upstream(&[("UPSTREAM_MODE", "idle-close")]);
    // A kept connection stays with its worker.
    let settings = [
        ("PROXY_UPSTREAM_KEEPALIVE", "on"),
        ("PROXY_WORKERS", "1"),
        ("LOG", "debug"),
    ];
    let mut proxy = proxy(upstream.address, &settings);
    let get = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let first = exchange(proxy.address, get).expect("the proxy listens");
    assert!(first.is_whole() && first.status == Some(200), "{first:?}");
    proxy.wait_for("upstream connection kept");
    let second = exchange(proxy.address, get).expect("the proxy listens");
    assert!(
        second.is_whole() && second.status == Some(502),
        "{second:?}"
    );
    let line = proxy.wait_for("WARN recv() failed (104: Connection reset by peer)");
    assert_eq!(field(&line, "request"), Some("2"), "{line}");
    assert_eq!(field(&line, "phase"), Some("waiting"), "{line}");
    assert_eq!(field(&line, "reused"), Some("true"), "{line}");

    let proxy = proxy.stop();
    let counted = ["resets", "harmless", "no_response"].map(|name| proxy.summary(name));
    assert_eq!(counted, [1, 0, 1]);
    // One connection, one response, and the second request once.
    let upstream = upstream.stop();
    assert_eq!(upstream.count(" closed "), 1, "{:#?}", upstream.log);
    let closed = upstream.log.iter().find(|line| line.contains(" closed "));
    let unread = closed.and_then(|line| field(line, "unread_bytes"));
    assert_ne!(unread, Some("0"));
}
