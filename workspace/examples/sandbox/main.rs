//! A service with write, read and exec routes, whose commands run where a daemon
//! is. See README.md.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use cairn::backend::Sandbox;
use cairn::exec::ExecOptions;
use cairn::{FsError, Workspace};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let (Some(replica), Some(daemon), Some(listen)) = (words.next(), words.next(), words.next())
    else {
        return Err("usage: sandbox REPLICA DAEMON-URL LISTEN-ADDRESS".into());
    };
    let token = std::env::var("CAIRN_TOKEN").unwrap_or_default();
    let workspace = Workspace::builder()
        .backend("box", Sandbox::at(&daemon)?.token(&token))
        .create(replica)
        .await?;
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening at http://{}", listener.local_addr()?);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                tokio::spawn(serve(workspace.clone(), accepted?.0));
            }
            _ = tokio::signal::ctrl_c() => {
                workspace.close().await?;
                return Ok(());
            }
        }
    }
}

async fn serve(workspace: Workspace, stream: tokio::net::TcpStream) {
    let service = service_fn(async |request| {
        let answered = answer(&workspace, request).await;
        Ok::<_, std::convert::Infallible>(answered.unwrap_or_else(|error| {
            let missing = matches!(error.downcast_ref(), Some(FsError::NotFound(_)));
            text(if missing { 404 } else { 500 }, format!("{error}\n"))
        }))
    });
    let connection = hyper::server::conn::http1::Builder::new();
    // A client that goes away is no matter.
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(workspace: &Workspace, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let fs = workspace.fs();
    match (
        head.method,
        head.uri.path().strip_prefix("/files/"),
        head.uri.path(),
    ) {
        (Method::PUT, Some(path), _) => {
            fs.write_file(format!("/{path}"), body).await?;
            Ok(text(204, ""))
        }
        (Method::GET, Some(path), _) => Ok(text(200, fs.read_file(format!("/{path}")).await?)),
        (Method::POST, None, "/exec") => {
            let script = String::from_utf8(body.into())?;
            let exec = workspace.exec(script, ExecOptions::default()).await?;
            let output = exec.result().await?;
            let mut answer = text(200, [output.stdout, output.stderr].concat());
            let code = output.exit.code.to_string();
            answer.headers_mut().insert("exit-code", code.try_into()?);
            let synced = format!("{:?}", output.synced).to_lowercase();
            answer.headers_mut().insert("synced", synced.try_into()?);
            Ok(answer)
        }
        _ => Ok(text(404, "PUT and GET /files/PATH, POST /exec\n")),
    }
}

fn text(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status.try_into().unwrap_or_default();
    answer
}
