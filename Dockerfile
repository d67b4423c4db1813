# Builds the service's image: `make docker-build`, or `docker build -t insights-platform-api .`
# No secret is built in; settings come from the environment (.env.example lists them).

FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements-uv.txt ./
RUN python -m venv /tools && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements-uv.txt
COPY requirements.txt requirements-dev.txt ./
# The PostgreSQL driver's pins and hashes are in the development lock; every other pin there stays out.
RUN awk '/^[a-z]/ { keep = /^psycopg/ } keep' requirements-dev.txt > requirements-postgres.txt \
    && python -m venv --without-pip /venv \
    && /tools/bin/uv pip install --python /venv/bin/python --no-cache --require-hashes --compile-bytecode \
        -r requirements.txt -r requirements-postgres.txt
WORKDIR /app
# .dockerignore lets through what runs, and the locks.
COPY . .
# Compiled here, because the service may not write beside its code; by hash, because copying may change times.
RUN rm requirements*.txt && python -m compileall -q --invalidation-mode unchecked-hash .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="Insights Platform API" org.opencontainers.image.licenses="MIT"
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATABASE_URL=sqlite+aiosqlite:////data/insights.db \
    HOST=0.0.0.0 \
    PORT=8000 \
    ENVIRONMENT=production
RUN groupadd --gid 10001 insights \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin insights \
    && install -d -o 10001 -g 10001 -m 0750 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, because urllib would send it through a proxy that the environment names.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "import http.client, json, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health'); sys.exit(json.load(c.getresponse())['status'] != 'ok')"]
CMD ["python", "main.py"]
