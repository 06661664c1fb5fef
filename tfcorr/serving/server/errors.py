"""What is wrong with a request, by the codes that gRPC has for it."""

from grpc import StatusCode


class RequestError(Exception):
    """A request that is not answered; its code and its text are all that a client is told."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> RequestError:
    """A request that is wrong in itself."""
    return RequestError(StatusCode.INVALID_ARGUMENT, message)


# As TensorFlow Serving maps them (model_servers/http_rest_api_util.cc and util/net_http).
HTTP_STATUS = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.UNKNOWN: 500,
    StatusCode.INTERNAL: 500,
    StatusCode.DATA_LOSS: 500,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
CODES = {code.value[0]: code for code in StatusCode}  # by their numbers, which are TensorFlow's own too
