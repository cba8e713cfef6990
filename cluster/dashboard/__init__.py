"""The service's HTTP port: the dashboard's pages, the JSON that they show at /api, /healthz and /metrics."""
