// Says, on the demo's page, what the models there are.

const text =
    "The models here are small stand-ins under the published models' names. All that they know is circles, squares, triangles " +
    "and stars in eight colours. The real ones are used by: python dev.py demo --published";

const notice = document.createElement("div");
notice.id = "relay-stand-ins";
notice.textContent = text;
Object.assign(notice.style, {
    position: "fixed",
    left: "50%",
    bottom: "12px",
    transform: "translateX(-50%)",
    maxWidth: "60%",
    padding: "8px 14px",
    borderRadius: "8px",
    background: "#5b4a16",
    color: "#fff3cf",
    font: "13px sans-serif",
    pointerEvents: "none",
    zIndex: 1000,
});
document.body.append(notice);
