//! Connections are spread over the workers, also the few of one application.

use crate::support::{Client, Scene, Stage, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn workers(number: usize) -> Scene {
    Stage::new(Upstream::always(OK)).workers(number).alone().start()
}

/// Sends a request on each connection and keeps it.
fn use_all(clients: &mut [Client], scene: &Scene) {
    for client in &mut *clients {
        client.send(format!("GET /api/x HTTP/1.1\r\nHost: {}\r\n\r\n", scene.proxy.address()));
    }
    for client in clients {
        assert_eq!(client.response().text(), "ok");
    }
}

#[test]
fn ten_connections_are_five_on_each_of_two_workers() {
    // Where the kernel puts them differs from time to time.
    for _ in 0..3 {
        let scene = workers(2);
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(scene.proxy.connect());
            use_all(clients.last_mut().map(std::slice::from_mut).expect("it was pushed"), &scene);
        }
        assert_eq!(scene.proxy.connections_by_worker(), [5, 5]);
        drop(clients);
        scene.end();
    }
}

#[test]
fn sixty_four_connections_at_once_leave_no_worker_with_a_quarter_more_than_the_mean() {
    let scene = workers(4);
    let mut clients: Vec<Client> = (0..64).map(|_| scene.proxy.connect()).collect();
    use_all(&mut clients, &scene);
    let counts = scene.proxy.connections_by_worker();
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (4, 64), "{counts:?}");
    assert!(counts.iter().all(|&count| count <= 64 / 4 * 5 / 4), "{counts:?}");
    // They stay where they are, and go on.
    use_all(&mut clients, &scene);
    drop(clients);
    scene.end();
}

#[test]
fn a_worker_whose_connections_end_gets_the_next_ones() {
    let scene = workers(2);
    let mut clients: Vec<Client> = (0..20).map(|_| scene.proxy.connect()).collect();
    use_all(&mut clients, &scene);
    clients.truncate(8);
    eventually("twelve are gone", || scene.proxy.connections_by_worker().iter().sum::<usize>() == 8);
    for _ in 0..4 {
        clients.push(scene.proxy.connect());
        use_all(clients.last_mut().map(std::slice::from_mut).expect("it was pushed"), &scene);
    }
    let counts = scene.proxy.connections_by_worker();
    assert!(counts.len() == 2 && counts.iter().all(|&count| count <= 8), "{counts:?}");
    drop(clients);
    scene.end();
}
