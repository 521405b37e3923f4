# {package} on the small agent's image: an ordinary user with a shell, git and Python. `bottle build` builds it.
ARG BASE=claude-bottle-agent
ARG VERSION={version}

# Certificates of extra-ca/ (those that your machine trusts besides the public ones) are trusted here, where packages
# are downloaded, and are not in the image.
FROM ${{BASE}} AS packages
USER root
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm
COPY extra-ca/ /usr/local/share/ca-certificates/
RUN update-ca-certificates
ARG VERSION
RUN NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
    npm install --global --prefix /opt/agent --cafile /etc/ssl/certs/ca-certificates.crt {package}@${{VERSION}} \
    && rm -rf /root/.npm

FROM ${{BASE}}
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends nodejs ripgrep \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=packages /opt/agent/ /opt/agent/
RUN ln -s /opt/agent/bin/{command} /usr/local/bin/{command}
# The agent's user has your own number where you say so, so that the files of your project are its own.
ARG UID=1000
ARG GID=1000
RUN if [ "${{UID}}:${{GID}}" != 1000:1000 ]; then \
        groupmod --non-unique --gid "${{GID}}" agent && usermod --non-unique --uid "${{UID}}" agent && chown -R agent:agent /home/agent; \
    fi
USER agent
WORKDIR /home/agent
CMD ["{command}"]
