"""What every process of a comparison is told, so that all do the same job: strip a prefix, add a token."""

import json

TOKEN = "not-a-token-but-as-long-as-an-opaque-one-usually-is-0123456789"
BIG = 100 * 1000 * 1000  # bytes of the large body

ORIGIN = """
daemon off; master_process off; pid {dir}/origin.pid; error_log {dir}/origin.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000000; open_file_cache max=16;
    client_body_temp_path {dir}/origin-body; client_max_body_size 0;
    proxy_temp_path {dir}/o1; fastcgi_temp_path {dir}/o2; uwsgi_temp_path {dir}/o3; scgi_temp_path {dir}/o4;
    server {{
        listen 127.0.0.1:{plain} backlog=1024;
        listen 127.0.0.1:{tls} ssl backlog=1024;
        listen 127.0.0.1:{h2} ssl http2 backlog=1024;
        ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols TLSv1.3;
        location /v1/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            alias {dir}/www/;
        }}
        location /up/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            alias {dir}/uploads/; dav_methods PUT;
        }}
        location = /token {{
            default_type application/json;
            return 200 '{{"access_token":"{token}","token_type":"bearer","expires_in":86399}}';
        }}
    }}
}}
"""

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 1000000000; client_max_body_size 0;
    client_body_temp_path {dir}/n0; proxy_temp_path {dir}/n1; fastcgi_temp_path {dir}/n2;
    uwsgi_temp_path {dir}/n3; scgi_temp_path {dir}/n4;
    upstream plain {{ server 127.0.0.1:{plain}; keepalive 64; keepalive_requests 1000000000; }}
    upstream tls {{ server 127.0.0.1:{tls}; keepalive 64; keepalive_requests 1000000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Authorization "Bearer {token}";
    proxy_set_header Host localhost;
    proxy_request_buffering off; proxy_max_temp_file_size 0;
    proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/ca.pem;
    proxy_ssl_name localhost; proxy_ssl_server_name on;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        listen 127.0.0.1:{tls_port} ssl backlog=1024;
        listen 127.0.0.1:{h2_port} http2 backlog=1024;
        ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols TLSv1.3;
        location /plain/ {{ proxy_pass http://plain/; }}
        location /tls/ {{ proxy_pass https://tls/; }}
    }}
}}
"""

# nginx 1.22 speaks no HTTP/2 to upstreams.
# `http-reuse always` and `bytes()` instead of a regular expression: what is cheapest for HAProxy.
HAPROXY = """
global
    nbthread 1
    maxconn 12000
    no strict-limits
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 75s
    timeout server 75s
frontend in
    bind 127.0.0.1:{port} backlog 1024
    bind 127.0.0.1:{tls_port} ssl crt {dir}/both.pem ssl-min-ver TLSv1.3 backlog 1024
    bind 127.0.0.1:{h2_port} proto h2 backlog 1024
    use_backend plain if {{ path_beg /plain/ }}
    use_backend tls if {{ path_beg /tls/ }}
    use_backend h2 if {{ path_beg /h2/ }}
backend plain
    http-request set-header Authorization "Bearer {token}"
    http-request set-path %[path,bytes(6)]
    server origin 127.0.0.1:{plain}
backend tls
    http-request set-header Authorization "Bearer {token}"
    http-request set-path %[path,bytes(4)]
    server origin 127.0.0.1:{tls} ssl verify required ca-file {dir}/ca.pem sni str(localhost) ssl-min-ver TLSv1.3
backend h2
    http-request set-header Authorization "Bearer {token}"
    http-request set-path %[path,bytes(3)]
    server origin 127.0.0.1:{h2} ssl verify required ca-file {dir}/ca.pem sni str(localhost) ssl-min-ver TLSv1.3 alpn h2
"""

RELAY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 75s
    timeout server 75s
listen relay
    bind 127.0.0.1:{port} backlog 1024
    server origin 127.0.0.1:{plain}
"""

CUPBEARER = """
[server]
listen = [{listen}]
workers = {workers}
max_connections = 12000

[admin]
listen = false

[log]
{log}

[credentials.bench]
client_id = "bench"
client_secret = {{ env = "BENCH_SECRET" }}
client_auth = "post"
token_url = "{token_url}"
scopes = ["bench"]
ca_file = "{dir}/ca.pem"
ip_family = "v4"
"""

ROUTE = """
[[routes]]
prefix = "{prefix}"
upstream = "{upstream}"
credential = "bench"
allow = ["GET /**", "PUT /up/*"]
"""


def cupbearer(directory, ports, *, workers=1, routes=0, access_log=None, tls=False, token_url=None, port=0):
    """Its configuration with `routes` more routes than those that are asked, which stand in the middle of them."""
    listen = [f'"127.0.0.1:{port}"']
    if tls:
        listen.append(f'{{ address = "127.0.0.1:0", tls = {{ cert = "{directory}/server.pem", key = "{directory}/server.key" }} }}')
    log = f'format = "json"\naccess = {json.dumps(str(access_log))}' if access_log else ""
    head = CUPBEARER.format(dir=directory, listen=", ".join(listen), workers=workers, log=log,
                            token_url=token_url or f"http://127.0.0.1:{ports['plain']}/token")
    asked = [("/plain", f"http://127.0.0.1:{ports['plain']}"), ("/tls", f"https://localhost:{ports['tls']}"),
             ("/h2", f"https://localhost:{ports['h2']}")]
    others = [(f"/other/{number:05}", f"http://127.0.0.1:{ports['plain']}/other/{number}") for number in range(routes)]
    half = len(others) // 2
    return head + "".join(ROUTE.format(prefix=prefix, upstream=upstream)
                          for prefix, upstream in others[:half] + asked + others[half:])
