# The relay, and the chat app where there is one: docker build -t clasp-relay .

# LICENSE is copied along because a pattern that matches nothing must not leave COPY with nothing.
FROM node:22.21-slim AS app
WORKDIR /app
COPY LICENSE apps/cha[t]/package*.json ./
RUN if [ -f package.json ]; then npm ci --no-audit --no-fund; fi
COPY LICENSE apps/cha[t] ./
COPY deploy/placeholder /placeholder
RUN if [ -f package.json ]; then npx vite build --outDir /web --emptyOutDir; else cp -r /placeholder /web; fi

FROM python:3.13-slim AS wheels
WORKDIR /relay
# The dependencies, pinned by their hashes; `make lock` renews the file. Wheels only: to build one, pip would download
# packages that are not pinned.
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --only-binary :all: --require-hashes --wheel-dir /wheels --requirement requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY src src
COPY twisted twisted
# The relay's own wheel is built with the setuptools that is pinned there.
RUN pip install --no-cache-dir --no-index --upgrade --find-links /wheels setuptools \
    && pip wheel --no-cache-dir --no-index --no-build-isolation --no-deps --wheel-dir /wheels .
# Without pip, since nothing is installed there later.
RUN python -m venv --without-pip /opt/clasp \
    && pip --python /opt/clasp/bin/python install --no-cache-dir --no-index --find-links /wheels 'clasp-relay[workers]'

FROM python:3.13-slim
# 999 owns the files of a volume that the Rust relay's image has used.
RUN groupadd --system --gid 999 clasp \
    && useradd --system --uid 999 --gid 999 --home-dir /data --no-create-home --shell /usr/sbin/nologin clasp \
    && install --directory --owner=clasp --group=clasp --mode=0700 /data
COPY --from=wheels /opt/clasp /opt/clasp
COPY --from=app /web /usr/share/clasp/chat
COPY src/clasp_relay/access/policies/chat-compat.json /etc/clasp/chat.json
# So that another command finds the same folders; the command line takes precedence.
ENV PATH=/opt/clasp/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CLASP_DATA_DIR=/data \
    CLASP_HEALTH_PORT=7360 \
    CLASP_WEB_ROOT=/usr/share/clasp/chat
WORKDIR /data
VOLUME /data
USER clasp
EXPOSE 7330 7350 7360
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['CLASP_HEALTH_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
# In the foreground, as process 1, without a pid file.
ENTRYPOINT ["clasp-relay"]
CMD ["--data-dir", "/data", "--health-port", "7360", "--app-config", "chat"]
