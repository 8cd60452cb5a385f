//! Connections of somebody who does not use this crate: bytes that he makes
//! himself, over QUIC and WebSocket.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use cairn_protocol::session::Offer;
use cairn_protocol::wire::{Code, Ext, Frame, FrameReader, Hello, Message, Role, Text};
use cairn_protocol::{FRAME_MAX, ReplicaTag};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::world::{Carrier, World, token};

/// A stranger's connection.
pub(crate) enum Raw {
    Quic {
        _endpoint: quinn::Endpoint,
        _connection: quinn::Connection,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        reader: FrameReader,
    },
    Ws {
        stream: TcpStream,
        buffer: BytesMut,
        reader: FrameReader,
    },
}

/// The greeting of a client of the workspace `w`.
pub(crate) fn hello(world: &World) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Client,
        workspace: world.url(Carrier::Ws, "w").workspace().id(),
        replica: ReplicaTag(99),
        token: token("writes"),
        capabilities: Offer::OURS.capabilities,
        limits: Offer::OURS.limits,
        agent: Text::cut("raw"),
        ext: Ext::default(),
    }
}

impl Raw {
    pub(crate) async fn connect(world: &World, carrier: Carrier) -> Self {
        match carrier {
            Carrier::Quic => quic(world).await,
            _ => websocket(world.address).await,
        }
    }

    /// Sends bytes as they are; over WebSocket as one message. `false` if the hub
    /// does not take them any more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Quic { send, .. } => send.write_all(bytes).await.is_ok(),
            Self::Ws { stream, .. } => {
                let header = FrameHeader {
                    opcode: OpCode::Data(Data::Binary),
                    // A mask of zeros changes nothing.
                    mask: Some([0; 4]),
                    ..FrameHeader::default()
                };
                let mut message = Vec::new();
                header.format(bytes.len() as u64, &mut message).unwrap();
                message.extend_from_slice(bytes);
                stream.write_all(&message).await.is_ok()
            }
        }
    }

    pub(crate) async fn say(&mut self, message: impl Into<Message>) -> bool {
        let frame = message.into().to_frame(0);
        self.send(&frame.encode()).await
    }

    /// The next frame of the hub on the control lane; `None` when it has ended.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            let reader = match self {
                Self::Quic { reader, .. } | Self::Ws { reader, .. } => reader,
            };
            if let Some(frame) = reader.next().unwrap() {
                return Some(frame);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    async fn read(&mut self) -> bool {
        match self {
            Self::Quic {
                receive, reader, ..
            } => match receive.read_chunk(FRAME_MAX, true).await {
                Ok(Some(chunk)) => {
                    reader.push(&chunk.bytes);
                    true
                }
                _ => false,
            },
            Self::Ws {
                stream,
                buffer,
                reader,
            } => loop {
                let mut cursor = Cursor::new(&buffer[..]);
                if let Some((header, len)) = FrameHeader::parse(&mut cursor).unwrap() {
                    let (start, len) = (header.len(len), usize::try_from(len).unwrap());
                    if buffer.len() >= start + len {
                        buffer.advance(start);
                        let payload = buffer.split_to(len);
                        if header.opcode == OpCode::Data(Data::Binary) {
                            reader.push(&payload);
                            return true;
                        }
                        continue;
                    }
                }
                match stream.read_buf(buffer).await {
                    Ok(1..) => {}
                    _ => return false,
                }
            },
        }
    }

    /// Why the hub ends the connection.
    pub(crate) async fn goodbye(&mut self) -> Option<Code> {
        let mut code = None;
        while let Some(frame) = self.frame().await {
            code = match Message::from_frame(&frame).unwrap() {
                Some(Message::Goodbye(goodbye)) => Some(goodbye.code),
                Some(Message::Error(error)) => Some(error.code),
                _ => code,
            };
        }
        code
    }
}

async fn quic(world: &World) -> Raw {
    let pem = std::fs::read(world.folder.path().join("hub-cert.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"cairn/1".to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, world.address, "cairn.invalid");
    let connection = connecting.unwrap().await.unwrap();
    let (send, receive) = connection.open_bi().await.unwrap();
    Raw::Quic {
        _endpoint: endpoint,
        _connection: connection,
        send,
        receive,
        reader: FrameReader::new(FRAME_MAX),
    }
}

/// Answers of the server to a plain request, or the start of a WebSocket.
pub(crate) async fn http(address: SocketAddr, request: &str) -> (TcpStream, String, BytesMut) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = BytesMut::new();
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            let head = String::from_utf8(head.to_vec()).unwrap();
            return (stream, head, buffer);
        }
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return (stream, String::new(), buffer);
        }
    }
}

pub(crate) const UPGRADE: &str = "GET /sync HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: cairn.v1\r\n\r\n";

async fn websocket(address: SocketAddr) -> Raw {
    let (stream, head, buffer) = http(address, UPGRADE).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    Raw::Ws {
        stream,
        buffer,
        reader: FrameReader::new(FRAME_MAX),
    }
}

/// Waits, but not for ever, for the hub to say why it ends the connection.
pub(crate) async fn told(raw: &mut Raw) -> Option<Code> {
    let told = tokio::time::timeout(Duration::from_secs(30), raw.goodbye());
    told.await.expect("the hub does not end the connection")
}
