"""The service's HTTP port: the pages of the dashboard, the same figures as JSON at /api, /healthz and /metrics."""
