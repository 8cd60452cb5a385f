//! Replicas of the model that edit at random, over real connections that break:
//! they converge.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::session::{ClientAction, ClientDone, HubAction, HubDone, Store, StoreFailure};
use cairn_protocol::testing::{
    ModelClient, ModelHub, ReplicaSafeguards, ReplicaSubject as _, Rng, Workload,
};
use cairn_protocol::{Epoch, ReplicaTag, Seq};
use cairn_transports::testing::{TcpLink, UdpLink};
use cairn_transports::tls::{Identity, Trust};
use cairn_transports::{
    Access, Beginning, Client, ClientOptions, Hub, Replica, Server, Upstream, Workspaces,
};

use super::world::{Carrier, REMOTE, until, within};

struct OfModel(ModelClient, ReplicaTag);

impl Replica for OfModel {
    fn beginning(&self) -> Result<Beginning, StoreFailure> {
        let (start, last_batch, last_batch_digest) = self.0.start();
        Ok(Beginning {
            replica: self.1,
            start,
            last_batch,
            last_batch_digest,
        })
    }

    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>> {
        Arc::new(self.0.clone())
    }
}

#[derive(Clone)]
struct HubOfModel(ModelHub);

impl Hub for HubOfModel {
    fn name(&self) -> String {
        "model".to_owned()
    }

    fn access(&self) -> Access {
        Access::default()
    }

    fn session(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        self.0.connect()
    }

    fn head(&self) -> Seq {
        self.0.head().seq
    }
}

impl Workspaces for HubOfModel {
    fn find(&self, _: [u8; 16]) -> Option<Arc<dyn Hub>> {
        Some(Arc::new(self.clone()))
    }

    fn all(&self) -> Vec<Arc<dyn Hub>> {
        vec![Arc::new(self.clone())]
    }
}

/// Replicas and the connections that they have.
struct Play {
    hub: ModelHub,
    tcp: TcpLink,
    _udp: UdpLink,
    replicas: Vec<(ModelClient, Client)>,
    server: Server,
    _folder: tempfile::TempDir,
}

async fn begin(carrier: Carrier) -> Play {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::open_or_create(folder.path()).unwrap();
    let trust = Trust::Pinned(identity.fingerprint());
    let hub = ModelHub::new(Epoch([1; 16]));
    let server = Server::builder()
        .listen((Ipv4Addr::LOCALHOST, 0).into())
        .identity(identity);
    let server = server
        .start(Arc::new(HubOfModel(hub.clone())))
        .await
        .unwrap();
    let tcp = TcpLink::start(server.address(), Duration::ZERO)
        .await
        .unwrap();
    let udp = UdpLink::start(server.address(), Duration::ZERO)
        .await
        .unwrap();
    udp.lose(10);
    let port = match carrier {
        Carrier::Quic => udp.address().port(),
        _ => tcp.address().port(),
    };
    let replicas = (1..4).map(|tag| {
        let replica = ModelClient::new(ReplicaTag(tag), ReplicaSafeguards::ALL);
        let upstream = Upstream::At {
            address: format!("{}://127.0.0.1:{port}/w", carrier.scheme())
                .parse()
                .unwrap(),
            trust: trust.clone(),
        };
        let of = Arc::new(OfModel(replica.clone(), ReplicaTag(tag)));
        let client = Client::start(upstream, ClientOptions::default(), of);
        (replica, client)
    });
    Play {
        replicas: replicas.collect(),
        hub,
        tcp,
        _udp: udp,
        server,
        _folder: folder,
    }
}

async fn random_edits(carrier: Carrier, seed: u64) {
    let mut rng = Rng(seed);
    let mut play = begin(carrier).await;
    let mut workload = Workload::new(&mut rng);
    for step in 0..150 {
        let index = rng.below(play.replicas.len());
        let (replica, _) = &mut play.replicas[index];
        if let Some(what) = workload.next(&mut rng, &replica.view()) {
            let _ = replica.edit(&what);
        }
        if step % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if rng.once_in(30) {
            play.tcp.cut_now();
        }
    }
    for (_, client) in &play.replicas {
        within("fence", client.handle().fence())
            .await
            .unwrap()
            .unwrap();
    }
    for (replica, _) in &play.replicas {
        let same = || replica.local() == play.hub.tree() && replica.is_clean();
        until("all are the same", same).await;
        assert_eq!(replica.missing(), [], "{carrier:?}, seed {seed}");
    }
    play.hub.tree().check().unwrap();
    for (_, client) in play.replicas {
        within("shutdown", client.shutdown()).await;
    }
    within("shutdown", play.server.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i3_i5_random_edits_over_real_connections_converge() {
    for carrier in REMOTE {
        for seed in 0..3 {
            random_edits(carrier, seed).await;
        }
    }
}
