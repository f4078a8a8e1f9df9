//! Settings that change while the programs run.

#![allow(clippy::unwrap_used)]

use rstlab_cli::Live;
use rstlab_lab::makes::load::{self, Extent, LoadPlan, Target};
use rstlab_proxy::ProxyConfig;
use rstlab_upstream::{Mode, UpstreamConfig};
use rstlab_witness::{Takers, Witness};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_setting_that_changes_takes_effect_at_the_next_request() {
    let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, proxy) = (listen().await, listen().await);
    let proxy_address = proxy.local_addr().unwrap();
    let stop = CancellationToken::new();
    let upstream_address = upstream.local_addr().unwrap().to_string();
    let upstream_config = UpstreamConfig {
        mode: Mode::Drain,
        response_bytes: 5,
        ..UpstreamConfig::default()
    };
    let upstream_config = Live::new(upstream_config);
    tokio::spawn(rstlab_upstream::run(
        upstream,
        upstream_config.clone(),
        Takers::default(),
        Witness::default(),
        stop.clone(),
    ));
    let config = ProxyConfig {
        upstream: upstream_address,
        max_body: Some(10),
        ..ProxyConfig::default()
    };
    let proxy_config = Live::new(config.clone());
    tokio::spawn(rstlab_proxy::run(
        proxy,
        proxy_config.clone(),
        Takers::default(),
        Witness::default(),
        stop.clone(),
    ));

    let mut plan = LoadPlan {
        extent: Extent::Requests(3),
        body_bytes: Some(11),
        ..LoadPlan::new(Target::from(proxy_address))
    };
    assert_eq!(load::run(&plan, |_| {}).await.status_4xx, 3, "413");
    proxy_config.set(ProxyConfig {
        max_body: Some(11),
        ..config
    });
    assert_eq!(load::run(&plan, |_| {}).await.status_2xx_3xx, 3);
    upstream_config.set(UpstreamConfig {
        status: "503".parse().unwrap(),
        ..(*upstream_config.now()).clone()
    });
    plan.extent = Extent::Requests(2);
    assert_eq!(load::run(&plan, |_| {}).await.status_5xx, 2);
    stop.cancel();
}
