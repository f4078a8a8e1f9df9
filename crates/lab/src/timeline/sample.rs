//! The record of the lazy story, both halves.

use rstlab_witness::Record;

pub(super) fn lazy() -> Record {
    let [proxy, upstream] = [
        include_str!("../../../witness/tests/records/lazy.proxy.json"),
        include_str!("../../../witness/tests/records/lazy.upstream.json"),
    ]
    .map(|text| Record::from_json(text).unwrap());
    proxy.merge(upstream).unwrap()
}
