# Flux-Gate's one image. web, fulfillment, migrate, roles and topics are this image with other commands.
#
#   docker compose build
#
# pip behind a mirror:     docker build --secret id=pip.conf,src=pip.conf -t flux-gate:local .
# pip without a network:   docker build --network none --build-arg WHEELS_IMAGE=wheels --build-arg PIP_NO_INDEX=1 ...
#                          where the image `wheels` holds the files of `pip download -r requirements.lock`.
# Either way requirements.lock decides what is installed, by hash. Needs BuildKit (Docker 20.10 and later).
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

FROM ${BASE_IMAGE} AS build
ARG PIP_NO_INDEX
RUN python -m venv /opt/fluxgate
COPY requirements.lock /tmp/requirements.lock
# Wheels only: nothing is compiled here, so the image needs no compiler and a source package cannot run its setup.
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/fluxgate/bin/pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary=:all: --find-links=/wheels -r /tmp/requirements.lock
WORKDIR /app
COPY . /app
# Development settings for this one step: collecting files needs no secret, and none may end up in a layer.
RUN FLUXGATE_ENVIRONMENT=development /opt/fluxgate/bin/python manage.py collectstatic --noinput --verbosity 0 \
    && /opt/fluxgate/bin/python -m compileall -q /app

FROM ${BASE_IMAGE}
ENV PATH=/opt/fluxgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/fluxgate /opt/fluxgate
COPY --from=build /app /app
WORKDIR /app
# A number, so that an orchestrator can see that it is not root. Nothing below is writable for it.
USER 10001:10001
EXPOSE 8000 9464
# Exec form: gunicorn is the process that gets SIGTERM and drains its workers.
CMD ["gunicorn", "-c", "fluxgate_site/gunicorn.conf.py", "fluxgate_site.asgi:application"]
